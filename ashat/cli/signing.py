"""An approver's signature over a release, made on their own machine after a look of their own: `deploy sign`, and
`deploy approve --key`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli import output
from ashat.cli.reading import open_ledger
from ashat.cli.trust import PassphraseFile, signer_of
from ashat.errors import IntegrityError, SessionError, TrustError

if TYPE_CHECKING:
    from ashat.session import State
    from ashat.trust.proposal import Draft, Proposal

Key = Annotated[Path, typer.Option("--key", metavar="FILE.pem", help="Your private key.")]


def sign(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update that awaits approval.")],
    key: Key,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Look at what awaits approval and sign it with your key; the line printed goes into the gate's form."""
    with open_ledger() as ledger:
        state = ledger.load(update_id)
    output.say(signature_line(state, key, passphrase_file))


def signature_line(state: State, key: Path, passphrase_file: Path | None) -> str:
    """The line that carries the signature of `key` over what is proposed at the gate of `state`, once every byte of
    the release was fetched from Public and hashed here, and the evidence held against what is proposed.

    Raises:
        SessionError: nothing is to be signed.
        TrustError: what is proposed is something else than what was verified, or the key is no approver's.
        IntegrityError, NodeError: the release cannot be had from Public as it was verified.
    """
    from ashat.trust.proposal import spell

    proposal = read_proposal(state)
    if proposal is None:
        raise SessionError(
            f"Nothing of '{state.update_id}' is to be signed: it awaits no signatures of people "
            "(deploy status; deploy trust status)."
        )
    _check_proposal(state, proposal)
    _hash_release(state)
    return spell(proposal.sign(signer_of(key, passphrase_file)))


def read_proposal(state: State) -> Proposal | None:
    """What people are to sign at the gate of `state`; None in the one-person mode, and where no gate is open.

    Raises:
        LedgerError: it is not what was recorded.
    """
    from ashat.trust.proposal import Proposal

    if state.gate is None or state.gate.proposal is None:
        return None
    with open_ledger() as ledger:
        return Proposal.from_json(ledger.document(state.gate.proposal))


def _check_proposal(state: State, proposal: Proposal) -> None:
    document = proposal.release.document
    if document.target != state.target:
        raise TrustError(
            f"'{state.update_id}' goes to {state.target}, which says that it is {document.target}; nothing was signed. "
            "Configure it under that name."
        )
    verified = (state.update_id, state.attempt, state.bundle, state.evidence)
    if (document.update_id, document.attempt, document.bundle, document.evidence) != verified:
        raise TrustError(f"What is proposed is not '{state.update_id}' as it was verified; nothing was signed.")
    for draft in (proposal.release, proposal.way_back):
        if draft is not None and not _names_only_its_document(draft):
            raise TrustError("What is proposed would release more than it says; nothing was signed.")
    with open_ledger() as ledger:
        evidence = ledger.document(document.evidence)
    if evidence.get("bundle") != document.bundle:
        raise TrustError("The evidence is about another bundle than what is proposed; nothing was signed.")


def _names_only_its_document(draft: Draft) -> bool:
    from tuf.api.metadata import TargetFile

    found, path = draft.production.signed, draft.document.path
    wanted = TargetFile.from_data(path, draft.document.to_bytes(), ["sha256"])
    return found.delegations is None and found.targets == {path: wanted}


def _hash_release(state: State) -> None:
    from ashat.cli.controlplane import ensure_control_plane
    from ashat.settings import Settings

    ensure_control_plane(Settings(), output.note)

    from blocks.server import load_server

    with load_server(state.public).client() as public:
        manifest = public.manifest(state.bundle or "")
        size = sum(len(content) for content in public.files_bytes(manifest.files))
    named = sum(file.size for file in manifest.files)
    if size != named:
        raise IntegrityError(f"{state.public} sent {size} bytes of a release of {named}; nothing was signed.")
    output.note(f"{len(manifest.files)} files ({size} bytes) fetched from {state.public} and hashed here: they are it.")
