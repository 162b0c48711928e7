"""Ask Prefect's API without Prefect: a few questions, each bounded, for commands that must be quick or must not hang.

Nothing is started, nothing is imported that takes seconds, and no secret of a block is asked for unless it is said.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ashat.cli.control_plane.state import read_password, read_state
from ashat.common.home import home
from ashat.errors import ControlPlaneError, DocumentError

ANSWER_LIMIT = 4 * 1024 * 1024
_SECONDS = 5.0


@dataclass(frozen=True)
class PrefectApi:
    """Where Prefect's API is, and what it is shown; `auth` is `user:password`, or empty."""

    url: str
    auth: str
    embedded: bool

    def ask(self, method: str, path: str, body: Any = None, *, seconds: float = _SECONDS) -> Any:
        """Ask, and return the JSON that is answered; None where there is nothing of that name (404).

        Raises:
            ControlPlaneError: it does not answer in time, refuses, or answers something else.
        """
        return asyncio.run(self._ask(method, path, body, seconds))

    async def _ask(self, method: str, path: str, body: Any, seconds: float) -> Any:
        import httpx

        from ashat.client.bounded import TooLargeError, exchange
        from ashat.client.environment import default_trust, proxy_of
        from ashat.common.documents import load_json

        user, _, password = self.auth.partition(":")
        try:
            proxy = proxy_of(httpx.URL(self.url))
            trust = default_trust() if self.url.startswith("https:") else False
            transport = httpx.AsyncHTTPTransport(verify=trust, trust_env=False, proxy=proxy)
            async with httpx.AsyncClient(
                transport=transport, trust_env=False, auth=(user, password) if self.auth else None
            ) as client:
                answer = await exchange(
                    client, method, f"{self.url}{path}", seconds=seconds, limit=ANSWER_LIMIT, json=body
                )
            if answer.status == HTTPStatus.NOT_FOUND:
                return None
            if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise ControlPlaneError(
                    f"The Prefect server at {self.url} refuses the password (HTTP {answer.status})."
                )
            if answer.status != HTTPStatus.OK:
                raise ControlPlaneError(f"The Prefect server at {self.url} answers HTTP {answer.status}.")
            return load_json(answer.body, limit=ANSWER_LIMIT)
        except DocumentError as error:
            raise ControlPlaneError(f"What answers at {self.url} is no Prefect server: {error}.") from None
        except (TimeoutError, TooLargeError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            why = str(error) or type(error).__name__
            raise ControlPlaneError(f"The Prefect server at {self.url} does not answer: {why}.") from None

    def servers(self, *, secrets: bool = False, seconds: float = _SECONDS) -> list[dict[str, Any]]:
        """List the configured servers: each block's data, with its name as `block`; Public first, then by name.

        Raises:
            ControlPlaneError: as `ask`.
        """
        path = f"/block_types/slug/raos-server/block_documents?include_secrets={str(secrets).lower()}"
        found = self.ask("GET", path, seconds=seconds)
        listed = [
            {**document["data"], "block": str(document["name"])}
            for document in (found if isinstance(found, list) else [])
            if isinstance(document, dict) and isinstance(document.get("data"), dict) and document.get("name")
        ]
        return sorted(listed, key=lambda server: (server.get("role") != "public", server["block"]))

    def has_block(self, kind: str, name: str) -> bool:
        """Tell whether there is a block of that type and name.

        Raises:
            ControlPlaneError: as `ask`.
        """
        return self.block(kind, name) is not None

    def block(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return what the block of that type and name holds, without its secrets; None where there is none.

        Raises:
            ControlPlaneError: as `ask`.
        """
        found = self.ask("GET", f"/block_types/slug/{quote(kind)}/block_documents/name/{quote(name, safe='')}")
        if found is None:
            return None
        data = found.get("data") if isinstance(found, dict) else None
        return data if isinstance(data, dict) else {}

    def workers(self, pool: str) -> int | None:
        """Count the workers that poll a pool now; None where there is no such pool.

        Raises:
            ControlPlaneError: as `ask`.
        """
        found = self.ask("POST", f"/work_pools/{quote(pool)}/workers/filter", {})
        if not isinstance(found, list):
            return None
        return len([worker for worker in found if isinstance(worker, dict) and worker.get("status") == "ONLINE"])


def known_api(home: Path) -> PrefectApi | None:
    """Find Prefect's API as the settings have it: the server that `PREFECT_API_URL` names, else the control plane of
    `home`, whether or not it runs; None where neither is known."""
    named = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    state = read_state(home)
    if named and (state is None or named != state.api_url):
        return PrefectApi(named, os.environ.get("PREFECT_API_AUTH_STRING", ""), embedded=False)
    return PrefectApi(state.api_url, read_password(home), embedded=True) if state else None


def kept_variable(name: str, what: str) -> object:
    """Read the value of a variable of Prefect, which keeps `what`; None where there is none.

    Raises:
        ControlPlaneError: the control plane does not run or does not answer.
    """
    from ashat.cli.control_plane.connect import running_state

    root = home()
    api = known_api(root)
    if api is None or (api.embedded and running_state(root) is None):
        raise ControlPlaneError(f"The control plane, which keeps the {what}, does not run: deploy up starts it.")
    found = api.ask("GET", f"/variables/name/{name}")
    return found.get("value") if isinstance(found, dict) else None
