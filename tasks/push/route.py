"""Find between which servers an update goes, before anything of it is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from ashat.common.identifiers import name_of_server
from ashat.common.text import cut, printable
from ashat.errors import NotConfiguredError
from blocks.listing import ServerBlock, configured_servers
from blocks.server import how_to_configure

_TITLE = 100


@dataclass(frozen=True)
class Route:
    """Name the servers that an update goes over, as people called them when it was pushed.

    `public_url` is where Public is; `lacking` says what is still to be configured, "" where nothing is.
    """

    public: str
    target: str
    public_title: str
    target_title: str
    public_url: str = ""
    lacking: str = ""

    @property
    def words(self) -> str:
        """Say where the update goes, in a line."""
        here, there = (
            name_of_server(self.public, self.public_title),
            name_of_server(self.target, self.target_title),
        )
        return f"{here} (Public Server, {self.public_url}); once it is approved, {there} (OMEGA)"


def find_route(public: str, target: str) -> Route:
    """Find the configured Public Server and target, without their tokens. An update may be pushed and verified before
    its target is configured; then `lacking` says so.

    Raises:
        NotConfiguredError: Public is not configured, or one of the two is a server of the other kind.
    """
    known = {server.block: server for server in configured_servers()}
    here, there = known.get(public), known.get(target)
    if here is None:
        raise NotConfiguredError(how_to_configure(public, "public"))
    _require_role(here, "public", "the Public Server")
    if there is not None:
        _require_role(there, "omega", "a target")
    lacking = "" if there else f"{how_to_configure(target)} It can be pushed and verified; approving it waits for that."
    return Route(public, target, _title(here), _title(there), here.url, lacking)


def _require_role(server: ServerBlock, role: str, what: str) -> None:
    if server.role != role:
        raise NotConfiguredError(
            f"'{server.block}' is configured as a server of the role {server.role}, so it cannot be {what}: "
            "deploy servers lists them."
        )


def _title(server: ServerBlock | None) -> str:
    return cut(printable(server.title.strip()), _TITLE) if server else ""
