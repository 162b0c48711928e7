"""`deploy trust`: who approves, and by which keys (docs/trust.md)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.errors import UsageError

if TYPE_CHECKING:
    from securesystemslib.signer import Signer, SSlibKey

    from ashat.client.node import NodeClient
    from ashat.trust.authority.authority import Authority, AuthorityState
    from ashat.trust.authority.key_change import Change
    from ashat.trust.keys.files import OnlinePublicKeys
    from ashat.trust.tuf.metadata import Holders

trust_app = typer.Typer(no_args_is_help=True, help="Say who approves releases, and by which keys.")

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="A file, closed to others, with the passphrase or PIN.")
]
Target = Annotated[str, typer.Option("--as", metavar="NAME", help="For which OMEGA, by the name it is configured as.")]


@trust_app.command("keygen", short_help="Make an approver's key pair.")
def keygen(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The approver's name, such as kim.")],
    passphrase_file: PassphraseFile = None,
    uri: Annotated[
        str, typer.Option(help="Where a key is that a token or a key service holds, such as hsm:2?label=YubiKey.")
    ] = "",
    public: Annotated[
        Path | None, typer.Option(help="With --uri: its public half in PEM, as the key service hands it out.")
    ] = None,
) -> None:
    """Make an approver's key pair, with a passphrase: asked for, from ASHAT_KEY_PASSPHRASE, or from a file.

    With --uri no key is made: the one that is there signs from now on, and its PIN takes the passphrase's place."""
    from ashat.trust.keys.files import check_name, create_key, given_passphrase, public_path
    from ashat.trust.keys.hardware import create_reference

    check_name(name)
    if public is not None and not uri:
        raise UsageError("--public goes with --uri: the public half of a key that is made here is written beside it.")
    people = authority_of().people
    people.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = people / (f"{name}.key" if uri else f"{name}.pem")
    if uri:
        key = create_reference(
            path, name, uri, public, lambda: given_passphrase(passphrase_file) or _ask(f"The PIN of {uri}")
        )
    else:
        passphrase = given_passphrase(passphrase_file) or _ask(f"A passphrase for {name}", twice=True)
        key = create_key(path, name, passphrase)
    what = "says where it is" if uri else "keep it, and its passphrase; nobody can restore either"
    output.say(f"✅ {name} has a key: {key.keyid[:12]}")
    output.say(f"  private: {path}  ({what})")
    output.say(f"  public:  {public_path(path)}  (give it to whoever runs deploy trust init or add-approver)")


def _named(option: str, what: str) -> Any:
    return typer.Option(option, metavar="NAME=FILE.pub", help=f"{what}; may be repeated.")


@trust_app.command("init", short_help="Set up who approves.")
def init(
    approver: Annotated[list[str] | None, _named("--approver", "An approver")] = None,
    threshold: Annotated[
        int | None, typer.Option(help="How many of them it takes; more than half of them by default.")
    ] = None,
    builder: Annotated[list[str] | None, _named("--builder", "A machine whose pushes count")] = None,
    verifier: Annotated[list[str] | None, _named("--verifier", "A machine whose checks count")] = None,
    omega_keys: Annotated[
        Path | None, typer.Option(help="What ashat-node trust-keys printed on OMEGA; else OMEGA itself is asked.")
    ] = None,
    target: Target = "omega",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be set up, and write nothing.")] = False,
) -> None:
    """Set up who approves: people by their public keys, or without --approver the one-person mode."""
    from ashat.trust.keys.files import name_of
    from ashat.trust.tuf.metadata import BUILDER, PRODUCTION, VERIFIER, Holders, check_holders, check_machines

    authority = authority_of(target)
    authority.refuse_second()
    keys, builders, verifiers = (
        [named_key(option, given) for given in some or []]
        for option, some in (("--approver", approver), ("--builder", builder), ("--verifier", verifier))
    )
    if threshold is not None and not keys:
        raise UsageError("--threshold counts approvers: give each with --approver NAME=FILE.pub.")
    people = Holders(keys, threshold if threshold is not None else len(keys) // 2 + 1)
    if keys:
        check_holders(PRODUCTION, keys, people.threshold)
    check_machines(keys, builders, verifiers)
    pinned = None
    if not dry_run:
        online, pinned = _seen(target, omega_keys)
        if pinned is not None and not keys:
            raise UsageError(
                f"{target} begins with no root but its trust_root ({pinned[:12]}), which cannot be this one: name the "
                "approvers, or take that setting away on OMEGA's machine."
            )
        authority.init(keys, people.threshold, online=online, now=output.now(), builders=builders, verifiers=verifiers)
    output.say(f"{'Would be set up' if dry_run else '✅ Set up'} in {authority.directory}:")
    machines = {BUILDER: [name_of(key) for key in builders], VERIFIER: [name_of(key) for key in verifiers]}
    _say_set_up(authority.directory / "root.json", people, machines)
    if pinned is not None:
        output.warn(f"{target} begins with another root ({pinned[:12]}): let this root.json be its trust_root.")


def _say_set_up(root: Path, people: Holders, machines: Mapping[str, Sequence[str]]) -> None:
    """Say who approves, and what is to be done next."""
    from ashat.trust.authority.authority import ONE_PERSON
    from ashat.trust.keys.files import name_of

    if not people.keys:
        for line in ONE_PERSON:
            output.say(f"  {line}")
        say_machines(machines)
        return
    names = ", ".join(sorted(name_of(key) for key in people.keys))
    output.say(f"  {people.threshold} of {len(people.keys)} approve each release, and hold root and targets: {names}.")
    say_machines(machines)
    output.say("  Each of them signs it once: deploy trust sign --key FILE.pem")
    output.say(f"  Then: deploy trust publish. Mainframes need {root} (trust_root), as OMEGA may.")


@trust_app.command("sign", short_help="Sign who approves, as one who holds it.")
def sign(
    key: Annotated[Path, typer.Option("--key", help="Your private key.")],
    passphrase_file: PassphraseFile = None,
    target: Target = "omega",
) -> None:
    """Sign a new trust root, or a change of one, with your key: what changes is said first. Again changes nothing."""
    from ashat.trust.authority.pending_change import PendingChange

    authority = authority_of(target)
    pending = PendingChange(authority)
    if not pending.exists():
        say_signed(authority.sign(signer_of(key, passphrase_file)))
        return
    held = authority.read()
    say_change(pending.read(), held)
    say_counts(pending.sign(signer_of(key, passphrase_file)), held)


def say_change(change: Change, held: AuthorityState) -> None:
    """Say what becomes otherwise by `change` of what is `held`."""
    if change.taken(held.root.signed):
        output.say(f"The change to root version {change.root.signed.version} is being put in force.")
        return
    output.say(f"A change to root version {change.root.signed.version} (deploy trust sign, publish or abandon):")
    for line in change.differences(held.root.signed, held.targets.signed):
        output.say(f"  {line}")


def say_counts(change: Change, held: AuthorityState) -> None:
    """Say who has signed `change` of what is `held`, and how it goes on."""
    counts = change.counts(held.root.signed)
    for line in output.columns([part, f"signed by {found}"] for part, found in counts.items()):
        output.say(line)
    if all(found.complete for found in counts.values()):
        output.say("  Enough have signed: deploy trust publish")
    else:
        output.say("  Each who is needed signs it: deploy trust sign --key FILE.pem")


def signer_of(key: Path, passphrase_file: Path | None) -> Signer:
    """Load what signs with the private key that the file `key` holds or refers to; its passphrase or PIN is asked for
    where none is given.

    Raises:
        KeyFileError: the file or the passphrase is no good.
    """
    from ashat.trust.keys.files import given_passphrase
    from ashat.trust.keys.hardware import signer_in

    return signer_in(key, lambda: given_passphrase(passphrase_file) or _ask(f"The passphrase or PIN of {key}"))


def say_machines(named: Mapping[str, Sequence[str]]) -> None:
    """Say whose provenance each release needs; nothing where nobody is named for it."""
    for role, what in (("builder", "Built"), ("verifier", "Verified")):
        if names := named.get(role):
            output.say(f"  {what} by {' or '.join(names)}: else a release is refused.")


def say_signed(state: AuthorityState) -> None:
    """Say who has signed root and targets, and who has yet to."""
    for name, found in (("root", state.root_signatures), ("targets", state.targets_signatures)):
        output.say(f"  {name:<8} signed by {found}")
    if not state.complete:
        output.warn("Not in force before enough have signed: deploy trust sign --key FILE.pem")


def named_key(option: str, given: str) -> SSlibKey:
    """Load the public key that `given`, such as kim=kim.pub, names.

    Raises:
        UsageError: it is not written so.
        KeyFileError: the file holds no such key.
    """
    from ashat.trust.keys.files import load_public_key

    name, _, file = given.partition("=")
    if not name or not file:
        raise UsageError(f"{option} {given[:80]!r}: write it as NAME=FILE.pub, such as kim=kim.pub.")
    return load_public_key(Path(file), name)


def _seen(target: str, file: Path | None) -> tuple[OnlinePublicKeys, str | None]:
    """Find OMEGA's own keys, and which root it pins, so far as it was asked."""
    from ashat.common.documents import STATE_LIMIT, read_json
    from ashat.trust.keys.files import OnlinePublicKeys

    if file is not None:
        try:
            content = read_json(file, limit=STATE_LIMIT)
            return OnlinePublicKeys.of({str(role): str(key) for role, key in dict(content).items()}), None
        except OSError as error:
            raise UsageError(f"--omega-keys {file} cannot be read: {error.strerror}.") from None
        except (ValueError, TypeError):
            raise UsageError(f"--omega-keys {file} is not what ashat-node trust-keys prints.") from None
    with omega_client(target) as omega:
        seen = omega.trust()
    return OnlinePublicKeys.of(seen.online), seen.pinned


@contextmanager
def omega_client(target: str, *, dry_run: bool = False) -> Iterator[NodeClient]:
    """Connect to the OMEGA that is configured as `target`.

    Raises:
        NotConfiguredError: there is none of that name.
    """
    ready(dry_run=dry_run)

    from blocks.server import load_server

    with load_server(target).client() as omega:
        yield omega


def authority_of(target: str = "omega") -> Authority:
    """Find where the trust root of the OMEGA that is configured as `target` is kept."""
    from ashat.settings import Settings
    from ashat.trust.authority.authority import Authority

    return Authority(Settings().ensure_home(), target)


def _ask(what: str, *, twice: bool = False) -> str:
    if not sys.stdin.isatty():
        raise UsageError("A passphrase is needed, and nobody can be asked: give --passphrase-file FILE.")
    return str(typer.prompt(what, hide_input=True, confirmation_prompt=twice, err=True))
