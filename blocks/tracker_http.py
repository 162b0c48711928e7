"""Ask a tracker's API: a bound on time and size for each answer, and one line for whatever goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx

from ashat.client.bounded import Answer, TooLargeError, exchange
from ashat.client.environment import default_trust, is_loopback, proxy_of
from ashat.client.no_answer import Asked, why_no_tls
from ashat.common.documents import load_json
from ashat.common.numbers import read_retry_after
from ashat.common.text import cut, printable, without_secrets
from ashat.errors import DocumentError, TaskRefusedError, TrackerBusyError, TrackerError

SECONDS = 10.0
ANSWER_LIMIT = 8 * 1024 * 1024
LONGEST_PAUSE = 3600.0
_WORDS = 120
_OF_THE_TASK = (400, 403, 404, 409, 410, 422)
_MOVED = (301, 302, 303, 307, 308)


def usable_url(url: str) -> str:
    """Return the address without a slash at its end.

    Raises:
        ValueError: it is none, holds a password, or would carry the token across a network readable.
    """
    try:
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, ValueError):
        raise ValueError("it is no address") from None
    if parsed.scheme not in ("https", "http") or not parsed.host or parsed.userinfo:
        raise ValueError("give an address that begins with https://, without a user or a password")
    if parsed.scheme == "http" and not is_loopback(parsed.host):
        raise ValueError("by http:// the token would cross the network readable: give https://")
    return str(parsed).rstrip("/")


class TrackerApi:
    """A tracker's API at `url`, with the headers that sign in, and the `secrets` that no message may repeat."""

    def __init__(self, url: str, headers: Mapping[str, str], secrets: tuple[str, ...]) -> None:
        self.url = url
        self._headers = {"User-Agent": "ashat-deploy", "Accept": "application/json", **headers}
        self._secrets = secrets

    def get(self, path: str, **params: str | int) -> Any:
        """Read the JSON at a path. Raises as `ask`."""
        return _json(self.ask("GET", path, params=params))

    def send(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON to a path, and read the JSON that is answered; None where that is empty. Raises as `ask`."""
        answer = self.ask(method, path, json=body)
        return _json(answer) if answer.body.strip() else None

    def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Ask, and read the whole answer; 2xx alone is returned.

        Raises:
            TrackerBusyError: it asks to wait.
            TaskRefusedError: it does not do it for this task.
            TrackerError: it does not answer, in time and within bounds, or not as a tracker does.
        """
        url = f"{self.url}{path}"
        try:
            answer = asyncio.run(self._exchange(method, url, **options))
        except TimeoutError:
            raise TrackerError(f"it did not answer within {SECONDS:g} s") from None
        except TooLargeError:
            raise TrackerError(f"it answers more than {ANSWER_LIMIT} bytes") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise TrackerError(self._unreached(error)) from None
        if not 200 <= answer.status < 300:
            raise self._refused(answer)
        return answer

    async def _exchange(self, method: str, url: str, **options: Any) -> Answer:
        parsed = httpx.URL(url)
        trust = default_trust() if parsed.scheme == "https" else False
        async with httpx.AsyncClient(
            headers=self._headers, verify=trust, proxy=proxy_of(parsed), trust_env=False, follow_redirects=False
        ) as client:
            return await exchange(client, method, url, seconds=SECONDS, limit=ANSWER_LIMIT, **options)

    def _unreached(self, error: Exception) -> str:
        asked = Asked(self.url, "SSL_CERT_FILE", own_authority=False, direct=True, answered=False)
        why = why_no_tls(error, asked) or str(error) or type(error).__name__
        return f"it cannot be reached: {self._in_a_line(why)}"

    def _refused(self, answer: Answer) -> TrackerError:
        status = answer.status
        wait = _pause(answer)
        if status in (429, 503) or (status == 403 and wait is not None):
            seconds = LONGEST_PAUSE / 60 if wait is None else wait
            return TrackerBusyError(f"it asks to wait {seconds:.0f} s (HTTP {status})", seconds)
        if status == 401:
            return TrackerError("it refuses the token (HTTP 401): give it another one, by deploy tracker add")
        if status in _MOVED:
            return TrackerError(f"it has moved (HTTP {status}): give its new address or name, by deploy tracker add")
        said = self._said(answer)
        if status in _OF_THE_TASK:
            return TaskRefusedError(f"it refuses (HTTP {status}{said})", status)
        return TrackerError(f"it answers HTTP {status}{said}")

    def _said(self, answer: Answer) -> str:
        """The tracker's own words, in the fields in which GitHub, GitLab and Jira have them."""
        try:
            body = _json(answer)
        except TrackerError:
            return ""
        if not isinstance(body, dict):
            return ""
        errors = body.get("errors")
        found = (body.get("message"), body.get("error"), *_texts(body.get("errorMessages")), *_texts(errors))
        words = next((text for text in found if isinstance(text, str) and text.strip()), "")
        return f", {self._in_a_line(words)}" if words else ""

    def _in_a_line(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…") if secret else text
        return cut(printable(" ".join(without_secrets(text[:10_000]).split())), _WORDS)


def _json(answer: Answer) -> Any:
    try:
        return load_json(answer.body, limit=ANSWER_LIMIT)
    except DocumentError:
        raise TrackerError("it answers something that is no JSON: is that the address of its API?") from None


def _texts(found: object) -> list[object]:
    if isinstance(found, dict):
        return list(found.values())
    return found if isinstance(found, list) else []


def _pause(answer: Answer) -> float | None:
    """Read how many seconds to wait, an hour at most; None where it does not say."""
    wait = read_retry_after(answer.headers.get("Retry-After", ""), LONGEST_PAUSE)
    if wait is not None or answer.headers.get("X-RateLimit-Remaining", "").strip() != "0":
        return wait
    reset = answer.headers.get("X-RateLimit-Reset", "").strip()
    at = float(reset[:12]) if reset.isascii() and reset.isdigit() else time.time() + LONGEST_PAUSE
    return min(max(at - time.time(), 1.0), LONGEST_PAUSE)
