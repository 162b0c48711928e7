"""Implement `deploy configure`: say where a server or a source tree is."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from ashat.cli.commands.policies import configure_policy, configure_rollout_policy
from ashat.cli.commands.servers import anonymous, runs_now
from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.errors import AshatError, NodeError, UsageError, WrongRoleError

if TYPE_CHECKING:
    from blocks.server import RaosServer

Kind = Literal["public", "omega"]
_NAME_LIMIT = 100
_ANSWER_SECONDS = 10.0


class ConfigureGroup(TyperGroup):
    """Refuses by name what cannot be configured."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name.

        Raises:
            UsageError: nothing of that name can be configured.
        """
        found = super().get_command(ctx, cmd_name)
        if found is None and not ctx.resilient_parsing:
            hint = " A Mainframe asks OMEGA with its licence: ashat-node init." if cmd_name == "mainframe" else ""
            raise UsageError(
                f"{cmd_name!r} cannot be configured: use public, omega, source, policy or rollout-policy.{hint}"
            )
        return found


configure_app = typer.Typer(
    cls=ConfigureGroup, help="Say where a server or a source tree is, or what a verification asks."
)
configure_app.command("policy")(configure_policy)
configure_app.command("rollout-policy")(configure_rollout_policy)

Url = Annotated[str, typer.Argument(metavar="URL", help="Its URL, or its name or address with the port.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that people know it by.")]
TokenStdin = Annotated[bool, typer.Option("--token-stdin", help="Read its token from standard input.")]
Ca = Annotated[Path | None, typer.Option(help="PEM file of the private authority its certificate comes from.")]
InsecureHttp = Annotated[
    bool, typer.Option("--insecure-http", help="Let the token travel over plain http to another machine.")
]


@configure_app.command("public")
def configure_public(
    url: Url,
    name: Name,
    block: Annotated[str, typer.Option("--as", help="The name of its block.")] = "public",
    token_stdin: TokenStdin = False,
    ca: Ca = None,
    insecure_http: InsecureHttp = False,
    dry_run: DryRun = False,
) -> None:
    """Configure the Public Server. Its token: a prompt, --token-stdin, or ASHAT_PUBLIC_TOKEN (ASHAT_<BLOCK>_TOKEN)."""
    given = Given("public", url, name, block, ca, insecure_http=insecure_http)
    _configure(given, token_stdin=token_stdin, dry_run=dry_run)


@configure_app.command("omega")
def configure_omega(
    url: Url,
    name: Name,
    block: Annotated[str, typer.Option("--as", help="The name of its block, such as omega-eu.")] = "omega",
    token_stdin: TokenStdin = False,
    ca: Ca = None,
    insecure_http: InsecureHttp = False,
    dry_run: DryRun = False,
) -> None:
    """Configure OMEGA. Its token: a prompt, --token-stdin, or ASHAT_OMEGA_TOKEN (ASHAT_<BLOCK>_TOKEN)."""
    given = Given("omega", url, name, block, ca, insecure_http=insecure_http)
    _configure(given, token_stdin=token_stdin, dry_run=dry_run)


@configure_app.command("source")
def configure_source(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that push and release ask for, such as raos.")],
    location: Annotated[
        str,
        typer.Argument(
            metavar="LOCATION", help="A directory or an artifact of this machine, or the URL of a git repository."
        ),
    ],
    ref: Annotated[str, typer.Option(help="The commit, branch or tag to pack.")] = "",
    subdirectory: Annotated[str, typer.Option(help="The part of the tree to pack.")] = "",
    digest: Annotated[str, typer.Option(help="The sha256 that an archive, wheel or image must have.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Configure where a tree is, for pushes from the UI and on a schedule."""
    from ashat.bundle.artifacts.pack import is_artifact, parse_digest
    from ashat.bundle.git import without_credentials
    from ashat.common.identifiers import check_server_name

    check_server_name(name)
    digest = parse_digest(digest)
    remote = "://" in location or location.startswith("git@")
    if without_credentials(location) != location:
        raise UsageError("A source's URL holds no user and password: let git find them (a credential helper, ssh).")
    if not remote:
        place = Path(location).expanduser()
        if not (place.is_dir() or place.is_file()):
            raise UsageError(f"The source {location} is neither a directory nor a file.")
        location = str(place.resolve())
    if digest and (remote or not is_artifact(Path(location))):
        raise UsageError("--digest is for an archive, a wheel or an OCI image layout.")
    ready(dry_run=dry_run)
    if dry_run:
        would(f"configure the source {name}", f"Location: {location}", f"Ref: {ref or 'as it lies there'}")
        return

    from blocks.source import Source

    Source(location=location, ref=ref, subdirectory=subdirectory, digest=digest).save(name, overwrite=True)
    output.say("✅ Source configured successfully")
    _facts(("Name", name), ("Location", location), ("Ref", ref or "as it lies there"))


@dataclass(frozen=True)
class Given:
    """What the words of the command say of a server."""

    kind: Kind
    url: str
    name: str
    block: str
    ca: Path | None = None
    insecure_http: bool = False


def _configure(words: Given, *, token_stdin: bool, dry_run: bool) -> None:
    from ashat.client.http import normalise_url
    from ashat.common.identifiers import check_server_name

    kind, name, block, insecure_http = words.kind, words.name, words.block, words.insecure_http
    check_server_name(block)
    if block in ("public", "omega") and block != kind:
        raise UsageError(f"The block {block!r} is for a server of that kind: choose another name with --as.")
    if not name.strip() or len(name) > _NAME_LIMIT:
        raise UsageError(f"A server's name has 1 to {_NAME_LIMIT} characters.")
    address = normalise_url(words.url)
    authority = pem_of(words.ca) if words.ca else None
    given = given_token(block, stdin=token_stdin)
    ready(dry_run=dry_run)
    kept = _configured_before(block)
    keeps = kept is not None and kept.token is not None
    token = given or prompted_token(name, "nothing keeps the one it has" if keeps else "nothing gives it none")
    if kept is not None:
        token = token or (kept.token.get_secret_value() if kept.token else None)
        authority = authority or kept.ca
    answers = _answers(kind, address, name, authority)
    named = [] if block == kind else [("Block", block)]
    facts = (("Type", kind.upper()), ("Name", name), ("URL", address), *named, ("Answers", answers))
    if dry_run:
        change = "change the server" if kept else "configure a server"
        would(change, *(f"{fact}: {value}" for fact, value in facts), f"Token: {'given' if token else 'none'}")
        return
    found = _server(kind, name, address, token, authority, insecure_http=insecure_http)
    if kept is not None:
        found.windows, found.freezes = kept.windows, kept.freezes
    found.save(block, overwrite=True)
    output.say("✅ Server configured successfully")
    _facts(*facts)
    _warn(name, address, token, insecure_http=insecure_http)
    if token is not None and answers.startswith("yes"):
        _warn_of_scopes(kind, name, block)


def _answers(kind: Kind, address: str, name: str, authority: str | None) -> str:
    """Whether the server answers now, in words.

    Raises:
        WrongRoleError: it does, as another kind of server.
        UsageError: the CA cannot be used.
    """
    with anonymous(kind, address, name, authority) as node:
        try:
            return f"yes, {runs_now(node.check_role())}"
        except WrongRoleError:
            raise
        except NodeError as error:
            return f"no: {error}"


def _warn(name: str, address: str, token: str | None, *, insecure_http: bool) -> None:
    import httpx

    from ashat.client.environment import is_loopback

    if token is None:
        output.warn(f"{name} has no token here: it will refuse whatever asks for more than who it is.")
    if address.startswith("http://") and not is_loopback(httpx.URL(address).host):
        sent = "its token will cross the network readable" if insecure_http else "its token will not be sent over that"
        output.warn(f"{address} is plain http on another machine: {sent}. Use https (or allow it: --insecure-http).")


def _warn_of_scopes(kind: Kind, name: str, block: str) -> None:
    """Say so where the server does not know what was given for it, or where that opens too little."""
    from ashat.protocol.messages import Scope
    from blocks.server import load_server

    needed, too_little = {
        "public": (
            Scope.PUSH,
            "nothing can be pushed or verified there, which takes a dev's: ashat-node token add --role dev on it",
        ),
        "omega": (
            Scope.PROMOTE,
            "as a dev's does: updates wait at the gate, and to approve or roll one back takes an owner's",
        ),
    }[kind]
    try:
        with load_server(block).client() as node:
            opens = node.token().opens
    except AshatError as error:
        output.warn(str(error))
        return
    if needed not in opens:
        output.warn(f"The token of {name} opens {', '.join(opens)} only, {too_little}.")


def _configured_before(block: str) -> RaosServer | None:
    from blocks.listing import is_configured
    from blocks.server import load_server

    return load_server(block) if is_configured(block) else None


def _server(
    kind: Kind, name: str, address: str, token: str | None, authority: str | None, *, insecure_http: bool
) -> RaosServer:
    from pydantic import SecretStr

    from blocks.server import RaosServer

    return RaosServer(
        role=kind,
        title=name,
        url=address,
        token=SecretStr(token) if token else None,
        ca=authority,
        insecure_http=insecure_http,
    )


def _facts(*facts: tuple[str, str]) -> None:
    for name, value in facts:
        output.say(f"  {name}: {value}")


def given_token(block: str, *, stdin: bool) -> str | None:
    """The token from standard input, or else from ASHAT_<BLOCK>_TOKEN; None where neither has one.

    Raises:
        UsageError: none came on standard input, or what came is no token.
    """
    variable = f"ASHAT_{block.upper().replace('-', '_')}_TOKEN"
    told = sys.stdin.readline() if stdin else os.environ.get(variable, "")
    token = told.strip()
    if stdin and not token:
        raise UsageError("No token came on standard input.")
    return _usable(token, "standard input" if stdin else variable) if token else None


def prompted_token(name: str, otherwise: str) -> str | None:
    """The token that is typed; None where nobody is there, or nothing is typed: `otherwise` says what that does.

    Raises:
        UsageError: what is typed is no token.
    """
    if not output.interactive():
        return None
    typed = typer.prompt(f"Token of {name} ({otherwise})", default="", hide_input=True, show_default=False)
    return _usable(str(typed).strip(), "the prompt") if str(typed).strip() else None


def pem_of(path: Path) -> str:
    """The certificates of a private authority.

    Raises:
        UsageError: the file holds none.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not PEM"
        raise UsageError(f"The CA file {path} cannot be used: {reason}.") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UsageError(f"The CA file {path} cannot be used: it holds no PEM certificate.")
    return text


def _usable(token: str, origin: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"What came from {origin} is no token: it holds a space or a character that no token has.")
    return token
