"""Keep in a Prefect block where a server is and what token opens it."""

from __future__ import annotations

from typing import Literal

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from ashat.client.http import Timeouts
from ashat.client.node import NodeClient
from ashat.common.calendar import Calendar
from ashat.errors import NotConfiguredError
from ashat.protocol.messages import Role
from ashat.settings import Settings
from blocks.find import find_block


class RaosServer(Block):
    """
    The Public Server or OMEGA: its address and its token.

    Attributes:
        role: What the server is, public or omega. The server is asked, and refused if it is another.
        title: A name that people know it by.
        url: The address of its node, such as https://staging.example.com:8443.
        token: What opens it. OMEGA's is loaded only by the flows behind the gate.
        ca: PEM text of a private certificate authority, if its certificate comes from one.
        insecure_http: Whether the token may travel over plain http to another machine.
        windows: When a release may go to it, each as a time that recurs, and a note; none: at any time.
        freezes: When none may, whatever window is open.

    Example:
        Load a stored server and ask what it runs:
        ```python
        from blocks.server import RaosServer

        with RaosServer.load("BLOCK_NAME").client() as node:
            print(node.identity().current)
        ```
    """

    _block_type_name = "RaOS Server"
    _block_type_slug = "raos-server"
    _description = "The Public Server or OMEGA, with its address and its token."

    role: Literal["public", "omega"] = Field(title="Role", description="What the server is.")
    title: str = Field(title="Name", description="A name that people know it by.")
    url: str = Field(title="URL", description="The address of its node.")
    token: SecretStr | None = Field(default=None, title="Token", description="What opens it.")
    ca: str | None = Field(default=None, title="CA", description="PEM text of a private certificate authority.")
    insecure_http: bool = Field(
        default=False, title="Insecure HTTP", description="Let the token travel over plain http to another machine."
    )

    windows: list[str] = Field(
        default=[],
        title="Windows",
        description="When a release may go to it, each such as FREQ=DAILY;BYHOUR=2 PT4H Europe/Berlin; none: always.",
    )
    freezes: list[str] = Field(
        default=[],
        title="Freezes",
        description="When no release may go to it, each such as 2026-12-20 P2W Europe/Berlin nobody is here.",
    )

    def calendar(self) -> Calendar:
        """Return when a release may go to it.

        Raises:
            UsageError: a window or a freeze does not fit.
        """
        return Calendar.of(self.windows, self.freezes)

    def client(self, settings: Settings | None = None) -> NodeClient:
        """Make a client of the server, which refuses a server of another role. Close it, or use it in a `with`."""
        settings = settings or Settings()
        return NodeClient(
            self.url,
            token=self.token.get_secret_value() if self.token else None,
            ca=self.ca,
            insecure_http=self.insecure_http,
            name=self.title,
            expect_role=Role(self.role),
            timeouts=Timeouts(settings.connect_timeout, settings.read_timeout),
        )


def load_server(name: str) -> RaosServer:
    """Load the server block of that name.

    Raises:
        NotConfiguredError: there is none.
    """
    found = find_block(RaosServer, name)
    if found is None:
        raise NotConfiguredError(how_to_configure(name))
    return found


def how_to_configure(name: str, role: str = "omega") -> str:
    """Say that no server of that name is configured, and how to configure one."""
    kind = name if name in ("public", "omega") else role
    alias = "" if name == kind else f" --as {name}"
    return f"No server '{name}' is configured: deploy configure {kind} <url> <name>{alias}."
