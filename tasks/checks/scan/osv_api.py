"""Fetches advisories from a server that speaks OSV's API (https://google.github.io/osv.dev/api/), with hard limits.

Only names and versions of packages are sent. Many packages are asked about in one request, the records that concern
them are then fetched side by side; what may pass (a lost connection, 429, 502 to 504) is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from ashat import __version__
from ashat.client.bounded import TooLargeError, exchange
from ashat.client.environment import default_trust, proxy_of
from ashat.errors import UsageError
from tasks.checks.kit.base import one_line
from tasks.checks.scan.osv import AdvisoriesUnknownError, Advisory
from tasks.checks.scan.packages import Package

SECONDS = 30.0
ANSWER_SECONDS = 20.0
BATCH = 500
PAGES = 20
RECORDS_LIMIT = 1000
HITS_LIMIT = 5000
ANSWER_BYTES = 4 * 1024 * 1024
SIDE_BY_SIDE = 8
ATTEMPTS = 3
_PASSING = (429, 502, 503, 504)
_GONE = 404
_Message = TypeVar("_Message", bound=BaseModel)


class _PassingError(AdvisoriesUnknownError):
    """The advisories could not be had, but a later request may succeed."""


class _GoneError(AdvisoriesUnknownError):
    """There is nothing at that path."""


class _Hit(BaseModel):
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]{0,127}$")


class _Result(BaseModel):
    vulns: Annotated[
        list[_Hit], Field(max_length=HITS_LIMIT), BeforeValidator(lambda value: [] if value is None else value)
    ] = []
    next_page_token: str | None = None


class _Batch(BaseModel):
    results: Annotated[list[_Result], Field(max_length=BATCH)]


def shown(url: str) -> str:
    """Take the credentials that it may hold out of a URL."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=b"")).rstrip("/")
    except httpx.InvalidURL:
        return "an address that is none"


def ask_osv(url: str, packages: Sequence[Package], seconds: float = SECONDS) -> dict[Package, list[Advisory]]:
    """Fetch what the server at `url` knows of `packages`; those it knows nothing of are left out.

    Raises:
        AdvisoriesUnknownError: it gave no whole answer within `seconds`, or none that can be read.
    """
    try:
        return asyncio.run(_within(url, packages, seconds))
    except AdvisoriesUnknownError as error:
        raise AdvisoriesUnknownError(f"{shown(url)} {error}") from None


async def _within(url: str, packages: Sequence[Package], seconds: float) -> dict[Package, list[Advisory]]:
    try:
        async with asyncio.timeout(seconds), _Server(url) as server:
            hits = await server.hits(packages)
            ids = sorted({one for each in hits.values() for one in each})
            gate = asyncio.Semaphore(SIDE_BY_SIDE)
            records = await asyncio.gather(*(server.record(one, gate) for one in ids[:RECORDS_LIMIT]))
    except TimeoutError:
        raise AdvisoriesUnknownError(f"gave no whole answer within {seconds:g} s") from None
    known = {one: Advisory(id=one) for one in ids} | dict(zip(ids, records, strict=False))
    return {package: [known[one] for one in each if not known[one].withdrawn] for package, each in hits.items() if each}


class _Server:
    def __init__(self, url: str) -> None:
        self._base = url.rstrip("/")

    async def __aenter__(self) -> _Server:
        try:
            url = httpx.URL(self._base)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise AdvisoriesUnknownError("cannot be asked: the policy's osv_url is no http or https address")
        try:
            trust, proxy = default_trust() if url.scheme == "https" else False, proxy_of(url)
        except UsageError as error:
            raise AdvisoriesUnknownError(f"cannot be asked: {error}") from None
        self._client = httpx.AsyncClient(
            verify=trust,
            proxy=proxy,
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": f"ashat-deploy/{__version__}"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def hits(self, packages: Sequence[Package]) -> dict[Package, list[str]]:
        """Fetch the ids of the advisories for each package, page by page."""
        found: dict[Package, list[str]] = {package: [] for package in packages}
        left: dict[Package, str | None] = dict.fromkeys(packages)
        for _ in range(PAGES):
            pages: dict[Package, str | None] = {}
            asked = list(left.items())
            for start in range(0, len(asked), BATCH):
                part = asked[start : start + BATCH]
                answer = await self._ask(_Batch, "/v1/querybatch", {"queries": [_query(*each) for each in part]})
                if len(answer.results) != len(part):
                    raise AdvisoriesUnknownError(f"answered {len(answer.results)} of {len(part)} questions")
                for (package, _token), result in zip(part, answer.results, strict=True):
                    found[package] += [hit.id for hit in result.vulns]
                    if result.next_page_token:
                        pages[package] = result.next_page_token
            if not pages:
                return found
            left = pages
        raise AdvisoriesUnknownError(f"had more than {PAGES} pages of advisories for one package")

    async def record(self, one: str, gate: asyncio.Semaphore) -> Advisory:
        """Fetch one advisory, by its id; of one that is no longer there, only the id."""
        try:
            async with gate:
                record = await self._ask(Advisory, f"/v1/vulns/{quote(one, safe='')}")
        except _GoneError:
            return Advisory(id=one)
        if record.id != one:
            raise AdvisoriesUnknownError(f"answered {one_line(record.id, 60)} when asked for {one}")
        return record

    async def _ask(self, kind: type[_Message], path: str, body: Mapping[str, Any] | None = None) -> _Message:
        content = b""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(0.2, max=2),
            retry=retry_if_exception_type(_PassingError),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                content = await self._exchange(path, body)
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            why = f"{where}: {problem['msg']}" if where else str(problem["msg"])
            raise AdvisoriesUnknownError(f"answers {path} not as OSV does ({one_line(why, 120)})") from None

    async def _exchange(self, path: str, body: Mapping[str, Any] | None) -> bytes:
        method = "GET" if body is None else "POST"
        try:
            answer = await exchange(
                self._client, method, self._base + path, seconds=ANSWER_SECONDS, limit=ANSWER_BYTES, json=body
            )
        except TooLargeError:
            raise AdvisoriesUnknownError(f"answers more than {ANSWER_BYTES} bytes at {path}") from None
        except (TimeoutError, httpx.TransportError) as error:
            raise _PassingError(f"does not answer: {one_line(error) or type(error).__name__}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AdvisoriesUnknownError(f"cannot be asked: {one_line(error)}") from None
        if answer.status != httpx.codes.OK:
            raise _refusal(answer.status, path)
        return answer.body


def _refusal(status: int, path: str) -> AdvisoriesUnknownError:
    kind = _PassingError if status in _PASSING else _GoneError if status == _GONE else AdvisoriesUnknownError
    return kind(f"answers {status} at {path}")


def _query(package: Package, page_token: str | None) -> dict[str, Any]:
    query: dict[str, Any] = {
        "package": {"name": package.name, "ecosystem": package.ecosystem},
        "version": package.version,
    }
    return query | ({"page_token": page_token} if page_token else {})
