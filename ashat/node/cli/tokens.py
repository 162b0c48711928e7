"""`ashat-node token`: the tokens that open a node, kept on its own machine, whether or not it runs.

A token is shown once, when it is made: only its hash is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from ashat.common.text import hidden_character, printable
from ashat.errors import UsageError
from ashat.node.access.tokens import SCOPES, Token, TokenFile, follow_in
from ashat.node.cli.record import Config, Data, data_of, open_record
from ashat.node.cli.secret_output import Out, say_where, secret_output
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import RECORD_FILE, now
from ashat.protocol.licences import parse_expiry
from ashat.protocol.messages import Role, Scope, TokenRole

NAME_LENGTH = 128
_LONGEST_OVERLAP = 90 * 86400

token_app = typer.Typer(no_args_is_help=True, help="The tokens that open this node.")

TokenPath = Annotated[Path | None, typer.Option("--token-file", help="The tokens' hashes; <data>/tokens.json.")]
TokenId = Annotated[str, typer.Argument(metavar="ID", help="Its id, as `token list` shows it.")]
Expires = Annotated[
    str, typer.Option(help="The last day on which it opens (2027-12-31, in UTC), or a time; by default none.")
]


@token_app.command("add")
def add_token(
    scope: Annotated[
        list[Scope] | None, typer.Option("--scope", help="What it may do; may be given several times.")
    ] = None,
    role: Annotated[
        TokenRole | None, typer.Option("--role", help="Instead: all that a dev or an owner has to do on this node.")
    ] = None,
    name: Annotated[str, typer.Option(help="What it is for, such as alpha.")] = "",
    expires: Expires = "",
    config: Config = None,
    data: Data = None,
    token_file: TokenPath = None,
    out: Out = None,
) -> None:
    """Make a token and print it, once. A running node knows it at once."""
    if bool(scope) == bool(role):
        raise UsageError("Say what the token may do: with --scope, or with --role, and not with both.")
    until = parse_expiry(expires) if expires else None
    scopes = SCOPES[role][_role(config, data)] if role else tuple(scope or ())
    with secret_output(out) as write:
        with _tokens(config, data, token_file) as tokens:
            token, secret = tokens.add(_check_name(name), scopes, expires=until)
        _describe(token, out)
        write(secret)


@token_app.command("list")
def list_tokens(
    config: Config = None,
    data: Data = None,
    token_file: TokenPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON array.")] = False,
) -> None:
    """List the tokens: id, scopes, since when, until when, what for. Never a token, nor its hash."""
    with _tokens(config, data, token_file) as tokens:
        found = tokens.all()
    if as_json:
        typer.echo(json.dumps([token.model_dump(mode="json", exclude={"sha256"}) for token in found]))
        return
    for token in found:
        end = _end(token) if token.expires else ""
        words = (f"{','.join(token.scopes):<18}", f"{token.created:%Y-%m-%d %H:%M}Z", f"{end:<25}", token.name)
        typer.echo(printable("  ".join((token.id, *words)).rstrip()))


@token_app.command("rotate")
def rotate_token(
    token_id: TokenId,
    overlap: Annotated[
        int, typer.Option(help="Seconds for which the old one still opens; 0: none.", min=0, max=_LONGEST_OVERLAP)
    ] = 86400,
    config: Config = None,
    data: Data = None,
    token_file: TokenPath = None,
    out: Out = None,
) -> None:
    """Make a token in the place of another and print it, once. The old one still opens for a time."""
    with secret_output(out) as write:
        with _tokens(config, data, token_file) as tokens:
            old, new, secret = tokens.rotate(token_id, timedelta(seconds=overlap))
        still = "opens nothing any more" if old.expired(now()) else f"opens {_end(old)}"
        typer.echo(f"Token {old.id} {still}; {new.id} is in its place.", err=True)
        _describe(new, out)
        write(secret)


@token_app.command("revoke")
def revoke_token(token_id: TokenId, config: Config = None, data: Data = None, token_file: TokenPath = None) -> None:
    """Forget a token. A running node refuses it at once."""
    with _tokens(config, data, token_file) as tokens:
        token = tokens.revoke(token_id)
    typer.echo(f"Token {token.id} ({printable(token.name) or 'no name'}) opens nothing any more.")


@contextmanager
def _tokens(config: Path | None, data: Path | None, token_file: Path | None) -> Iterator[TokenFile]:
    """Open the node's tokens; its change log, where the node has a record yet, says what is done to them."""
    if token_file is None and config is not None:
        token_file = NodeConfig.load(config, data=data).tokens_path
    if data is None and config is None and token_file is not None:
        yield TokenFile(token_file)
        return
    data = data_of(config, data)
    path = token_file or data / "tokens.json"
    if not (data / RECORD_FILE).exists():
        yield TokenFile(path)
        return
    with open_record(data) as database:
        yield TokenFile(path, follow_in(database))


def _role(config: Path | None, data: Path | None) -> Role:
    """What the node is: by its settings, else by its record, else by the settings in its data directory."""
    if config is not None:
        return NodeConfig.load(config, data=data).role
    data = data_of(None, data)
    if (data / RECORD_FILE).exists():
        with open_record(data) as database:
            role = database.get_meta("role")
        if role is not None:
            return Role(role)
    if (data / "node.toml").exists():
        return NodeConfig.load(data / "node.toml", data=data).role
    raise UsageError(f"What kind of node has {data}? Give its --config FILE, or say --scope instead of --role.")


def _describe(token: Token, out: Path | None) -> None:
    end = f", {_end(token)}" if token.expires else ""
    typer.echo(f"Token {token.id} ({', '.join(token.scopes)}{end}){say_where(out)}", err=True)


def _end(token: Token) -> str:
    if token.expires is None:
        return "without an end"
    word = "expired" if token.expired(now()) else "until"
    return f"{word} {token.expires:%Y-%m-%d %H:%M}Z"


def _check_name(name: str) -> str:
    name = name.strip()
    if len(name) > NAME_LENGTH or not name.isprintable() or hidden_character(name):
        raise UsageError(f"A token's name has at most {NAME_LENGTH} printable characters.")
    return name
