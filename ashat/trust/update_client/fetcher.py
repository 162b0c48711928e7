"""How TUF metadata is fetched: through the same connection as everything else that a node is asked, and bounded.

TUF cannot protect from a server that never stops sending, or sends so slowly that nobody ever finds out: lengths are
bounded by python-tuf, chunk by chunk, and time by the transport, for each file as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import httpx
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface

from ashat.client.http import Transport
from ashat.errors import NodeError

FILE_SECONDS = 60.0
_ERROR_BYTES = 64 * 1024
_HEADERS = {"Accept": "*/*", "Cache-Control": "no-cache"}


class ServedRepository(Protocol):
    """OMEGA's repository as a client reaches it, over the wire or in a file."""

    def file(self, name: str) -> str:
        """Return the address of a file of the repository; with "" of the repository itself."""
        ...

    def consistency(self, earlier: int, size: int) -> str:
        """Return the address of the proof that the log of `size` events begins with that of `earlier`."""
        ...

    def fetcher(self) -> FetcherInterface:
        """Make what fetches from it."""
        ...


@dataclass(frozen=True)
class RemoteRepository:
    """OMEGA's repository as a client reaches it: its files at `metadata_url`, proofs from its log at `log_url`, both
    relative to the transport's address, or absolute. `file_seconds` is how long one file may take in all."""

    transport: Transport
    metadata_url: str = ""
    log_url: str = "log"
    file_seconds: float = FILE_SECONDS

    def file(self, name: str) -> str:
        """Return the address of a file of the repository; with "" of the repository itself."""
        return self._address(self.metadata_url, name)

    def consistency(self, earlier: int, size: int) -> str:
        """Return the address of the proof that the log of `size` events begins with that of `earlier`."""
        return self._address(self.log_url, f"consistency?from={earlier}&to={size}")

    def fetcher(self) -> TransportFetcher:
        """Make what fetches from it."""
        return TransportFetcher(self.transport, file_seconds=self.file_seconds)

    def _address(self, place: str, name: str) -> str:
        base = place if "://" in place else f"{self.transport.url}/{place.strip('/')}"
        return f"{base.rstrip('/')}/{name}"


class TransportFetcher(FetcherInterface):
    """Fetches by `transport`, which says who we are and whom we trust. No redirect is followed.

    `file_seconds` is how long one file may take in all, however little is missing.
    """

    def __init__(self, transport: Transport, *, file_seconds: float = FILE_SECONDS) -> None:
        self._transport = transport
        self._file_seconds = file_seconds

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Fetch the bytes of `url`, as they come.

        Raises:
            DownloadHTTPError: any answer but 200; its cause is the NodeError that says whose fault it is.
            DownloadError: no answer; its cause likewise.
        """
        stack = ExitStack()
        try:
            answer = self._transport.answer("GET", url, headers=_HEADERS, timeout=self._file_seconds)
            response = stack.enter_context(answer)
            if response.status_code != 200:
                error = self._transport.refusal(response, _some_of(response))
                raise DownloadHTTPError(str(error), response.status_code) from error
        except NodeError as error:
            stack.close()
            raise DownloadError(str(error)) from error
        except BaseException:
            stack.close()
            raise
        return _chunks(stack, response)


def _chunks(stack: ExitStack, response: httpx.Response) -> Iterator[bytes]:
    try:
        with stack:
            yield from response.iter_raw()
    except NodeError as error:
        if isinstance(error.__cause__, httpx.TimeoutException):
            raise SlowRetrievalError(f"{response.url.path} came too slowly, and was given up.") from None
        raise DownloadError(str(error)) from error


def _some_of(response: httpx.Response) -> bytes:
    """Read the body of an error as far as it can be of use."""
    content = b""
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > _ERROR_BYTES:
            break
    return content[:_ERROR_BYTES]
