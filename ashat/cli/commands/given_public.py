"""The Public Server as an approver knows it, instead of as Prefect's block has it: who stole the control plane could
name another there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.commands.configure import given_token, pem_of, prompted_token
from ashat.errors import UsageError

if TYPE_CHECKING:
    from blocks.server import RaosServer

PublicUrl = Annotated[
    str, typer.Option("--public", metavar="URL", help="Public's address as you know it, not as Prefect has it.")
]
PublicToken = Annotated[
    bool,
    typer.Option("--public-token-stdin", help="With --public: its token from standard input, or ASHAT_PUBLIC_TOKEN."),
]
PublicCa = Annotated[
    Path | None, typer.Option("--public-ca", metavar="FILE", help="With --public: the authority of its certificate.")
]


@dataclass(frozen=True)
class GivenPublic:
    """Public's address, its token, and PEM text of the private authority that its certificate comes from."""

    url: str
    token: str | None
    ca: str | None

    def server(self, name: str) -> RaosServer:
        """What asks it, and calls it `name`; it is kept nowhere."""
        from pydantic import SecretStr

        from blocks.server import RaosServer

        token = SecretStr(self.token) if self.token else None
        return RaosServer(role="public", title=name, url=self.url, token=token, ca=self.ca)


def given_public(url: str, ca: Path | None, *, token_stdin: bool) -> GivenPublic | None:
    """Public as the command's words name it; None where they do not.

    Raises:
        UsageError: they do not go together, or what they name cannot be used.
    """
    if not url:
        if token_stdin or ca is not None:
            raise UsageError("--public-token-stdin and --public-ca are of what --public names: give that, too.")
        return None
    from ashat.client.http import normalise_url

    address = normalise_url(url)
    authority = pem_of(ca) if ca else None
    token = given_token("public", stdin=token_stdin) or prompted_token(address, "nothing asks without one")
    return GivenPublic(address, token, authority)
