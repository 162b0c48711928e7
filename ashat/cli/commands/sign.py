"""Sign a release with an approver's key, on their own machine after a look of their own: `deploy sign`, and
`deploy approve --key`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.commands.given_public import GivenPublic, PublicCa, PublicToken, PublicUrl, given_public
from ashat.cli.commands.inspect import inspect, refuse_own_signature
from ashat.cli.commands.recheck import recheck as check_again
from ashat.cli.terminal import output
from ashat.cli.trust.setup import PassphraseFile, signer_of
from ashat.errors import SessionError, UsageError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.deployment.state_machine import State
    from ashat.trust.release.proposal import Proposal
    from ashat.trust.release.provenance import VerifiedProvenance

Recheck = Annotated[
    bool, typer.Option("--recheck", help="Run the checks again from here, by the code that is installed here.")
]
OwnPolicy = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="With --recheck: a policy of your own, as TOML.")
]
Key = Annotated[Path, typer.Option("--key", metavar="FILE.pem", help="Your private key.")]


@dataclass(frozen=True)
class Inspected:
    """Hold what is to be signed, which update that lets run, and who built it (None: nobody is named who may)."""

    update: State
    proposal: Proposal
    proven: VerifiedProvenance | None


def sign(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update that awaits approval.")],
    key: Key,
    passphrase_file: PassphraseFile = None,
    recheck: Recheck = False,
    policy: OwnPolicy = None,
    public: PublicUrl = "",
    public_token_stdin: PublicToken = False,
    public_ca: PublicCa = None,
) -> None:
    """Look at what awaits approval and sign it with your key; the line printed goes into the gate's form."""
    if policy is not None and not recheck:
        raise UsageError("--policy says what --recheck asks: give both.")
    known = given_public(public, public_ca, token_stdin=public_token_stdin)
    with open_ledger() as ledger:
        state = ledger.load(update_id)
    seen = inspected(state, known)
    if recheck:
        if seen.update != state:
            raise UsageError("--recheck looks before a release is approved; this is about a rollback.")
        with redirect_stdout(sys.stderr):  # what is printed is the signature alone
            check_again(state, policy, known)
    output.say(signature_line(seen, key, passphrase_file))


def inspected(state: State, public: GivenPublic | None = None) -> Inspected:
    """Read what is proposed at the gate of `state`, once every byte of the release was fetched from Public and hashed
    here, and provenance and evidence held against it. `public` is None where Public is believed to be where Prefect
    says.

    Raises:
        SessionError: nothing is to be signed.
        TrustError: what is proposed is something else than what was verified, or comes from elsewhere than it should.
        IntegrityError, NodeError: the release cannot be had from Public as it was verified.
    """
    update, proposal = read_proposal(state)
    if proposal is None:
        raise SessionError(
            f"Nothing of '{state.update_id}' is to be signed: it awaits no signatures of people "
            "(deploy status; deploy trust status)."
        )
    return Inspected(update, proposal, inspect(update, proposal, public))


def signature_line(seen: Inspected, key: Path, passphrase_file: Path | None) -> str:
    """Sign what was inspected with `key`; the line that carries the signature.

    Raises:
        TrustError: the key is no approver's, or that of who pushed where the policy wants four eyes.
    """
    from ashat.trust.release.proposal import spell

    signer = signer_of(key, passphrase_file)
    refuse_own_signature(seen.update, seen.proposal, seen.proven, signer)
    return spell(seen.proposal.sign(signer))


def read_proposal(state: State) -> tuple[State, Proposal | None]:
    """Read which update would run by what people are to sign about `state`, and that; None in the one-person mode, and
    where nobody is asked. Of a rollback, it is the update that would run again.

    Raises:
        LedgerError: it is not what was recorded.
    """
    from ashat.trust.release.proposal import Proposal

    request = state.awaited(output.now()) or state.gate
    if request is None:
        return state, None
    with open_ledger() as ledger:
        update = ledger.load(request.update_id, request.attempt)
        return update, Proposal.from_json(ledger.document(request.proposal)) if request.proposal else None
