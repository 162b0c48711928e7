"""Whether each approval in a log is one: who signed it, over what, and what stood in the log by then. Pure, no I/O.

`Approvals` is told of a log's documents and events beside the `Auditor`, which names the event that does not fit. An
event of a kind that is not known here, but carries signatures, is counted: whoever reads the result is told of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from ashat.common.canonical_json import digest_of
from ashat.deployment.events import AnyEvent, ApprovalAnswered, Promoted
from ashat.deployment.state import ApprovalRequest, State
from ashat.errors import AuditError, RolledBackError, TrustError, UnsignedError
from ashat.ledger.leaf import Record
from ashat.protocol.messages import ReleaseSignature
from ashat.transparency.checkpoint import Checkpoint
from ashat.transparency.witness import require_extends
from ashat.trust.release.known_log import open_log
from ashat.trust.release.proposal import Proposal, spell
from ashat.trust.release.provenance import check_digest, read_provenance, verify_provenance
from ashat.trust.tuf.metadata import check_target, parse, target_of, verify
from ashat.trust.tuf.release_document import CHANNEL, ReleaseDocument
from ashat.trust.tuf.root_chain import check_chain, delegator_of

RootAt = Callable[[int], bytes]
"""Gives the root of the tree over a log's first events, as many of them as were read or fewer."""


@dataclass(frozen=True)
class Anchor:
    """The root at which it begins for one OMEGA; `given` says that it did not come with the log. `digest` is the
    sha256 of its bytes."""

    version: int
    digest: str
    given: bool


class Approvals:
    """Follows the approvals of one log, from its first event on.

    `roots` are, for each OMEGA by its name, the roots that came with the log, oldest first; `pinned` are roots from
    elsewhere, each for the OMEGA that it names (or for every one, where it names none): it begins at the first of them
    instead.
    """

    def __init__(self, origin: str, roots: Mapping[str, Sequence[bytes]], pinned: Sequence[bytes] = ()) -> None:
        """Read the roots.

        Raises:
            AuditError: the roots do not follow on each other, or are others than those that are pinned.
        """
        self.signed = 0
        self.anchors: dict[str, Anchor] = {}
        self._origin = origin
        self._counts: Counter[str] = Counter()
        self._roots: dict[str, list[Metadata[Root]]] = {}
        self._given = [_root(content, "The root given") for content in pinned]
        for target, contents in roots.items():
            self._begin(target, [_root(content, f"A root of {target}") for content in contents])
        self._fresh: dict[str, Any] = {}
        self._states: dict[tuple[str, int], State] = {}
        self._proposals: dict[tuple[str, int], dict[str, Any]] = {}
        self._about: dict[str, tuple[Any, ...]] = {}
        self._targets: dict[str, Metadata[Targets]] = {}
        self._signed_for: set[str] = set()

    @property
    def unchecked(self) -> list[str]:
        """What could not be checked, in words."""
        rootless = [
            f"{target}: which root names those who approve, as the log came with none (--trust-root FILE gives it)"
            for target in sorted(self._targets)
            if target not in self.anchors
        ]
        strange = {target_of(root.signed) for root in self._given} - self._targets.keys() - {""}
        rootless += [f"{target}: nothing was approved for it, and a root of it is given" for target in sorted(strange)]
        return rootless + [f"{number} {what}" for what, number in sorted(self._counts.items())]

    def document(self, digest: str, content: Any) -> None:
        """Take a document that the next event names."""
        if not isinstance(content, dict):
            return
        if "release" in content and "targets" in content:
            self._fresh[digest] = content
        elif "bundle" in content:
            self._about[digest] = tuple(content.get(name) for name in ("bundle", "update_id", "attempt"))

    def event(self, record: Record, event: AnyEvent, state: State, root_at: RootAt) -> None:
        """Take the next event; `state` is its deployment's once it happened.

        Raises:
            AuditError, TrustError: an approval does not fit; the message says why.
        """
        key = record.update_id, record.attempt
        self._proposals.setdefault(key, {}).update(self._fresh)
        self._fresh = {}
        self._states[key] = state
        if isinstance(event, ApprovalAnswered):
            if event.accepted and event.decision == "approve":
                self._approval(event, state, record.seq, root_at)
        elif isinstance(event, Promoted):
            _check_promoted(event, state)
        elif _carries_signatures(event):
            self._counts[f"signatures in events of the kind {event.kind!r}, which this version cannot check"] += 1
        if state.ended and state.undecided("rollback") is None:
            self._proposals.pop(key, None)

    def _approval(self, event: ApprovalAnswered, state: State, seq: int, root_at: RootAt) -> None:
        if event.signature is None:
            if state.target in self._signed_for:
                raise UnsignedError(f"it carries no signature, as approvals for {state.target} before it do")
            self._counts["approved without a signature, before there were any: nothing shows by whom"] += 1
            return
        request = state.approvals[event.subject]
        about = self._states.get((request.update_id, request.attempt))
        if request.proposal is None or about is None:
            raise UnsignedError("what was signed is not in the record")
        content = self._proposals.get((state.update_id, state.attempt), {}).get(request.proposal)
        if content is None:
            raise UnsignedError(f"what was signed, {request.proposal[:12]}…, is no proposal of this deployment")
        proposal = Proposal.from_json(content)
        self._check_document(proposal, about)
        self._check_targets(proposal)
        _check_signature(proposal, event.signature)
        self._check_log(proposal.release.document, seq, root_at)
        if event.settles:
            self._complete(event, request, proposal, about)

    def _complete(self, event: ApprovalAnswered, request: ApprovalRequest, proposal: Proposal, state: State) -> None:
        document = proposal.release.document
        found = proposal.count(request.signatures)
        if not found.complete:
            raise UnsignedError(f"the release is signed by {found}")
        if event.subject == "release" and event.release_seq != document.release_seq:
            raise AuditError(f"it was approved as release {event.release_seq}, and {document.release_seq} was signed")
        if document.log is None:
            self._counts["approved without a checkpoint of the log: no approver vouches for what came before"] += 1
        self._check_provenance(proposal, state)
        self._signed_for.add(state.target)
        self.signed += 1

    def _check_document(self, proposal: Proposal, state: State) -> None:
        """Check that what was signed is about this very deployment, and nothing besides."""
        document = proposal.release.document
        require_about(document, state)
        if document.target != state.target:
            if state.target in self._roots:
                raise AuditError(f"it was signed for {document.target}, and not for {state.target}")
            self._counts[f"approved for {document.target}, which the record calls {state.target}"] += 1
        proposal.check_form()
        about = self._about.get(document.evidence)
        if about != (document.bundle, document.update_id, document.attempt):
            raise AuditError("the evidence is about another release than was signed")

    def _check_targets(self, proposal: Proposal) -> None:
        """Check that those who approve are those whom the holders of the root named, and no earlier ones than
        before."""
        target, targets = proposal.release.document.target, proposal.targets
        check_target(targets.signed, target)
        if target not in self._roots:
            self._begin(target, [])
        roots = self._roots[target]
        if roots:
            for root in (roots[0], self._delegator(roots, targets)):
                check_target(root.signed, target)
        known = self._targets.get(target)
        if known is not None and known.signed.version > targets.signed.version:
            raise RolledBackError(
                f"it goes by targets version {targets.signed.version}, and {known.signed.version} was in force before"
            )
        if known is not None and known.signed.version == targets.signed.version and known.signed != targets.signed:
            raise AuditError(f"it goes by another targets version {targets.signed.version} than was in force before")
        self._targets[target] = targets

    def _delegator(self, roots: Sequence[Metadata[Root]], targets: Metadata[Targets]) -> Metadata[Root]:
        try:
            return delegator_of(roots, targets)
        except UnsignedError as error:
            at = roots[0].signed.version
            raise UnsignedError(f"no root from version {at} on names who signed this: {error}") from None

    def _check_provenance(self, proposal: Proposal, state: State) -> None:
        proven, given = None, proposal.release.provenance
        for release in (proposal.rollback, proposal.release):
            if release is not None:
                check_digest(release.document, release.provenance)
                proven = verify_provenance(proposal.targets.signed, release.document, release.provenance)
        if proven is None:
            self._counts["approved where nobody is named who may build: who did is hearsay"] += 1
        if given is not None:
            content = read_provenance(given)
            for statement, recorded in ((content.get("build"), state.built), (content.get("evidence"), state.attested)):
                if (digest_of(statement) if statement is not None else None) != recorded:
                    raise AuditError("the provenance that was signed is not of the statements in the record")

    def _check_log(self, document: ReleaseDocument, seq: int, root_at: RootAt) -> None:
        """Check that the checkpoint that was signed is what this log was by then."""
        if document.log is None:
            return
        signed = open_log(document.log)
        then = Checkpoint(self._origin, seq, root_at(seq))
        log = "the log that was signed for"
        require_extends(then, signed, lambda: root_at(signed.size) == signed.root, log=log)

    def _begin(self, target: str, given: list[Metadata[Root]]) -> None:
        """Begin at the first root that is pinned for `target`, else at the first of those that came with the log."""
        pinned = [root for root in self._given if target_of(root.signed) in ("", target)]
        known: dict[int, Metadata[Root]] = {}
        for root in (*pinned, *given):
            if known.setdefault(root.signed.version, root).signed != root.signed:
                at = root.signed.version
                raise AuditError(f"The log came with another root version {at} of {target} than the one given.")
        begins = min((root.signed.version for root in pinned or given), default=0)
        roots = [known[version] for version in sorted(known) if version >= begins]
        self._roots[target] = roots
        if not roots:
            return
        try:
            verify(roots[0].signed, Root.type, roots[0])
            check_chain(roots)
        except TrustError as error:
            raise AuditError(f"The roots of {target} do not follow on each other: {error}") from None
        self.anchors[target] = Anchor(begins, sha256(roots[0].to_bytes()).hexdigest(), bool(pinned))


def require_about(document: ReleaseDocument, state: State) -> None:
    """Check that a release document is about this very deployment, as it was verified.

    Raises:
        MixAndMatchError: it is about another, or for another channel.
    """
    verified = {"update_id": state.update_id, "attempt": state.attempt, "bundle": state.bundle}
    document.require(**verified, evidence=state.evidence, channel=CHANNEL)


def _root(content: bytes, what: str) -> Metadata[Root]:
    try:
        return parse(content, Root, what)
    except TrustError as error:
        raise AuditError(str(error)) from None


def _check_signature(proposal: Proposal, signature: ReleaseSignature) -> None:
    found = proposal.read(spell(signature))
    if found != signature:
        raise UnsignedError(f"it is recorded as signed by {signature.name}, and the key is that of {found.name}")


def _check_promoted(event: Promoted, state: State) -> None:
    if state.decision is not None and event.release_seq != state.decision.release_seq:
        raise AuditError(f"release_seq {state.decision.release_seq} was approved, and {event.release_seq} promoted")


def _carries_signatures(event: AnyEvent) -> bool:
    return any(getattr(event, name, None) for name in ("signature", "signatures"))
