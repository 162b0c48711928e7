"""What a release answered, and what its database held, at one time: noted to be compared with a later time.

`deploy` notes it of the release that Public runs before it lets the next one run, and keeps it in the ledger.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ashat.common.canonical_json import canonical_json
from ashat.errors import AshatError
from ashat.protocol.messages import Digest
from ashat.protocol.probes import DatabaseCount

KIND = "baseline"
FORMAT = "ashat-baseline/1"


class BaselineError(AshatError):
    """What a release answered was not kept in a form that this version reads."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class SeenAnswers(_Part):
    """How one endpoint answered the same request, several times in a row.

    `declared` is the status that the release declares, `statuses` how often each came; no answer is status 0, and
    `trouble` says why. The rest is of the answers with the declared status: their media types, their least and most
    bytes, and, where all are JSON, what stands at each place of them (see `tasks.checks.kit.answers.shape_of`).
    """

    method: str
    path: str
    auth: str = ""
    declared: int
    statuses: dict[int, int] = {}
    trouble: str = ""
    types: list[str] = []
    least_bytes: int = 0
    most_bytes: int = 0
    shape: dict[str, str] | None = None
    not_json: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same request: method, path, and the name of the credential."""
        return self.method, self.path, self.auth

    @property
    def label(self) -> str:
        """The request as findings name it."""
        return f"{self.method} {self.path}" + (f" as {self.auth}" if self.auth else "")

    @property
    def asked(self) -> int:
        """How often it was requested."""
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        """How often it was not answered as declared."""
        return sum(count for status, count in self.statuses.items() if not as_declared(self.declared, status))

    @property
    def failures(self) -> list[int]:
        """The statuses other than the one declared."""
        return sorted(status for status in self.statuses if not as_declared(self.declared, status))


class WrittenValue(_Part):
    """A value that was written for the `[[kept]]` of that name; `by` names the release that took it."""

    name: str
    value: str
    by: str


class Baseline(_Part):
    """What the release `bundle` answered at one time.

    `unasked` endpoints were not requested for want of time, those in `without_credential` for want of what they name.
    `database` is None where its node counted nothing, and `uncounted` says why. `written` are the values of `[[kept]]`.
    """

    format: str = FORMAT
    bundle: Digest
    at: str
    answers: list[SeenAnswers] = []
    unasked: int = 0
    without_credential: list[str] = []
    database: DatabaseCount | None = None
    uncounted: str = ""
    written: list[WrittenValue] = []

    @classmethod
    def read(cls, document: dict[str, Any]) -> Self:
        """Read what `document` returned.

        Raises:
            BaselineError: it is none, or of a format that this version does not know.
        """
        if document.get("format") != FORMAT:
            raise BaselineError(f"what it answered was kept in a format that is not {FORMAT}")
        try:
            return cls.model_validate(document)
        except ValidationError:
            raise BaselineError("what it answered was kept in a form that cannot be read") from None

    def document(self) -> dict[str, Any]:
        """Return it as the ledger keeps it."""
        found = self.model_dump(mode="json")
        canonical_json(found)
        return found


def as_declared(declared: int, status: int) -> bool:
    """Tell whether that status is the one declared; any 2xx is as good as another."""
    return status == declared or (_good(status) and _good(declared))


def _good(status: int) -> bool:
    return 200 <= status < 300
