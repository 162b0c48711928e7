"""Server blocks as a command may see them: without their tokens, which only the flows load."""

from __future__ import annotations

from dataclasses import dataclass

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

_SLUG = "raos-server"


@dataclass(frozen=True)
class ServerBlock:
    """A configured server: the block's name, and where it is."""

    block: str
    role: str
    title: str
    url: str
    ca: str | None


def is_configured(block: str) -> bool:
    """Tell whether a server block has that name."""
    return any(server.block == block for server in configured_servers())


def configured_servers() -> list[ServerBlock]:
    """List every configured server, Public first, then by name."""
    with get_client(sync_client=True) as client:
        try:
            documents = client.read_block_documents_by_type(_SLUG, include_secrets=False)
        except ObjectNotFound:
            return []
    servers = [
        ServerBlock(
            block=document.name or "",
            role=str(document.data.get("role", "")),
            title=str(document.data.get("title", "")),
            url=str(document.data.get("url", "")),
            ca=document.data.get("ca"),
        )
        for document in documents
    ]
    return sorted(servers, key=lambda server: (server.role != "public", server.block))
