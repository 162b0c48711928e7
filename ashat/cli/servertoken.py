"""A server's token and CA, as a person gives them: a token never among a command's words, where all could read it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from ashat.cli import output
from ashat.errors import UsageError


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
