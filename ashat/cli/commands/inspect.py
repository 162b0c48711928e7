"""Inspect what is proposed on an approver's machine before it signs: whether it is what was verified, whose provenance
it has, and what it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.common.home import home
from ashat.common.text import printable
from ashat.errors import IntegrityError, NodeRefusedError, RolledBackError, TrustError, UnsignedError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from securesystemslib.signer import Signer
    from tuf.api.metadata import Targets

    from ashat.bundle.manifest import Manifest
    from ashat.cli.commands.given_public import GivenPublic
    from ashat.client.node import NodeClient
    from ashat.deployment.state_machine import State
    from ashat.trust.release.proposal import Proposal
    from ashat.trust.release.provenance import VerifiedProvenance
    from ashat.trust.tuf.release_document import LogEntry
    from ashat.verification.evidence import Evidence

_FILES_SHOWN = 20
_APPROVED = "approved"


def inspect(state: State, proposal: Proposal, public: GivenPublic | None = None) -> VerifiedProvenance | None:
    """See that what is proposed is `state` as it was verified, and tell where it comes from and what it changes. Who
    built it, None where `targets` names no builder. The release is had from `public`, or from where Prefect says.

    Raises:
        TrustError: it is something else, or nobody who may build or verify signed where it comes from.
        AuditError: the record that is signed for is not the one that is read here, or that was signed for before.
        LedgerError: the evidence is not what was recorded.
        IntegrityError, NodeError: the release cannot be had from Public as it was verified.
    """
    check_proposal(state, proposal)
    for entry in {release.document.log for release in (proposal.release, proposal.rollback) if release}:
        check_log(entry)
    from ashat.trust.release.provenance import verify_provenance

    release = proposal.release
    proven = verify_provenance(_targets(state, proposal), release.document, release.provenance)
    nobody = f"Nobody is named who may build for {state.the_target}: who did is hearsay."
    output.note(_origin(proven) if proven else nobody)
    _look_at_release(state, proposal, public)
    return proven


def refuse_own_signature(state: State, proposal: Proposal, proven: VerifiedProvenance | None, signer: Signer) -> None:
    """Where the policy in the evidence wants four eyes, see that `signer` is not who pushed; the gate asks again.

    Raises:
        UnsignedError: they are.
    """
    from ashat.deployment.approval_rules import pushers
    from ashat.trust.keys.files import name_of, public_hex

    if not evidence_of(state).policy.get("four_eyes"):
        return
    keyid, keys = signer.public_key.keyid, proposal.targets.signed.delegations
    name = name_of(keys.keys[keyid]) if keys and keyid in keys.keys else ""
    same = proven is not None and proven.builder_key == public_hex(signer).lower()
    if same or name.casefold() in pushers(state, proven.builder if proven else ""):
        raise UnsignedError(f"{name or 'You'} pushed '{state.update_id}', and the policy wants four eyes: not signed.")


def evidence_of(state: State) -> Evidence:
    """Read the evidence that awaits approval; its digest is computed anew.

    Raises:
        LedgerError: there is none, or it is not what was recorded.
    """
    from ashat.verification.evidence import Evidence

    with open_ledger() as ledger:
        return Evidence.read(ledger.document(state.evidence or ""))


def check_proposal(state: State, proposal: Proposal) -> None:
    """See that what is proposed is `state` as it was verified, and nothing besides.

    Raises:
        TrustError: it is not.
        LedgerError: the evidence is not what was recorded.
    """
    from ashat.audit.approvals import require_about
    from ashat.settings import Settings

    document = proposal.release.document
    if document.target != state.target:
        raise TrustError(
            f"'{state.update_id}' goes to {state.target}, which says that it is {document.target}; nothing was signed. "
            "Configure it under that name."
        )
    require_about(document, state)
    proposal.check(lifetime=Settings().approval_lifetime, now=output.now())
    evidence = evidence_of(state)
    if evidence.bundle != document.bundle:
        raise TrustError("The evidence is about another bundle than what is proposed; nothing was signed.")


def check_log(entry: LogEntry | None) -> None:
    """See that the log which is signed for is that of the ledger, and goes on from what was signed for here last. What
    came before that is not read again: what is signed for continues it, whatever it says by now.

    Raises:
        AuditError: it does not, or is of another ledger.
        LogError: the log that is signed for is none.
    """
    if entry is None:
        return
    from ashat.audit.auditor import Auditor, check_origin
    from ashat.audit.sign import audit_log
    from ashat.transparency.checkpoint import open_signed
    from ashat.transparency.log_signer import LogSigner
    from ashat.transparency.witness import Witness
    from ashat.trust.release.known_log import open_log, signed_checkpoint

    found = open_log(entry)
    with open_ledger() as ledger:
        origin, appended = ledger.log_head()
        check_origin(found, origin, "What is proposed")
        signer = LogSigner(home(), origin)
        with signer.locked():
            witness = Witness(signer.directory / f"{_APPROVED}.json")
            known = open_signed(last.checkpoint, last.key) if (last := witness.known()) else None
            size = max(found.size, known.size if known else 0)
            begun = signer.kept_tree(_APPROVED, known) if known and found.size >= known.size else None
            auditor = Auditor(appended=min(appended, size), documents=False, stories=begun is None, begun=begun)
            audit_log(ledger, auditor, until=size)
            for checkpoint in (found, known) if known else (found,):
                auditor.require_extends(checkpoint)
            if known is None or found.size > known.size:
                witness.keep(signed_checkpoint(entry))
                signer.keep_tree(_APPROVED, auditor.tree)


def _targets(state: State, proposal: Proposal) -> Targets:
    """Read who approves, builds and verifies, as the record has it; held against the trust root on this machine.

    Raises:
        UnsignedError, RolledBackError: it is not what the holders signed whom the root here names.
    """
    from tuf.api.metadata import Targets

    from ashat.settings import Settings
    from ashat.trust.authority.authority import Authority
    from ashat.trust.tuf.metadata import verify

    authority = Authority(Settings().ensure_home(), state.target)
    if not authority.exists():
        output.note(f"No trust root is here ({authority.directory}): who may build is what the record says.")
        return proposal.targets.signed
    held = authority.read()
    if proposal.targets.to_bytes() != held.targets.to_bytes():
        verify(held.root.signed, Targets.type, proposal.targets)
    if proposal.targets.signed.version < held.targets.signed.version:
        raise RolledBackError(
            f"What is proposed goes by targets version {proposal.targets.signed.version}, and "
            f"{held.targets.signed.version} is known here; nothing was signed."
        )
    return proposal.targets.signed


def _origin(proven: VerifiedProvenance) -> str:
    from ashat.protocol.origins import compared_in_words

    built = proven.parameters
    commit = "a tree without a git commit"
    if built.commit:
        commit = f"commit {built.commit[:12]}{printable(compared_in_words(built.dirty, built.differences))}"
    if built.artifact:
        commit = printable(str(built.artifact))
    checked = f"; verified on {proven.verifier}" if proven.verifier else ""
    return f"Built on {proven.builder}, as its key proves, from {commit}, pushed by {built.pushed_by}{checked}."


def _look_at_release(state: State, proposal: Proposal, given: GivenPublic | None) -> None:
    ready()

    from blocks.server import load_server

    server = given.server(state.the_public) if given else load_server(state.public)
    with server.client() as public:
        manifest = public.manifest(state.bundle or "")
        size = sum(len(content) for content in public.files_bytes(manifest.files))
        named = sum(file.size for file in manifest.files)
        if size != named:
            raise IntegrityError(f"{state.the_public} sent {size} bytes of a release of {named}; nothing was signed.")
        output.note(
            f"{len(manifest.files)} files ({size} bytes) fetched from {state.the_public} and hashed here: they are it."
        )
        _tell_changes(state, proposal, public, manifest)


def _tell_signed(proposal: Proposal) -> None:
    document, back = proposal.release.document, proposal.rollback
    way = f"; and the rollback to {back.document.update_id} ({back.document.bundle[:12]})" if back else ", no rollback"
    output.note(f"To be signed: release {document.release_seq}, until {document.expires:%Y-%m-%d}{way}.")


def _tell_changes(state: State, proposal: Proposal, public: NodeClient, manifest: Manifest) -> None:
    from ashat.bundle.manifest import diff

    last = proposal.replaced.document if proposal.replaced else None
    _tell_signed(proposal)
    before = last.bundle if last else state.gate and state.gate.target_bundle
    if not before:
        output.note(f"{state.the_target} runs nothing yet: everything is new.")
        return
    try:
        found = diff(public.manifest(before), manifest)
    except NodeRefusedError:
        output.note(f"{state.the_public} no longer holds what {state.the_target} runs ({before[:12]}): see the gate.")
        return
    kinds = (("removed", found.removed), ("changed", (*found.changed, *found.mode_changed)), ("added", found.added))
    files = [f"{kind} {path}" for kind, paths in kinds for path in paths]
    output.note(f"Against {before[:12]}, which {state.the_target} runs, {len(files)} files differ:")
    for line in files[:_FILES_SHOWN]:
        output.note(f"  {line}")
    if len(files) > _FILES_SHOWN:
        output.note(f"  … and {len(files) - _FILES_SHOWN} more")
