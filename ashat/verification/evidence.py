"""The evidence of one verification: a canonical JSON document, and its sha256 is its name.

What a check saw, on which bundle, under which policy, while the target ran what. It holds integers and strings only,
because canonical JSON has no floats (`ashat.common.canonical_json`). A document is written back word for word as it was
read, so that its digest stays: a field that an earlier format lacked is not added to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ashat.common.canonical_json import canonical_json, digest_of
from ashat.common.numbers import in_utc
from ashat.common.text import first_misfit
from ashat.errors import EvidenceError
from ashat.protocol.messages import Digest
from ashat.protocol.origins import Artifact

FORMAT = "ashat-evidence/3"
FORMATS = ("ashat-evidence/2", FORMAT)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")

Outcome = Literal["passed", "attention", "failed"]


def _spelled(moment: object) -> object:
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return moment.astimezone(UTC).isoformat()
    return moment


def _rfc_3339(text: str) -> str:
    if not _RFC_3339.fullmatch(text):
        raise ValueError("a time is written as RFC 3339 says, with its offset")
    in_utc(datetime.fromisoformat(text))
    return text


def _canonical(value: dict[str, Any]) -> dict[str, Any]:
    canonical_json(value)
    return value


Moment = Annotated[str, BeforeValidator(_spelled), AfterValidator(_rfc_3339)]
"""A time as RFC 3339 writes it; an aware `datetime` may be given, and becomes its text in UTC."""

Values = Annotated[dict[str, Any], AfterValidator(_canonical)]
"""Whatever has a canonical JSON form, by name."""

Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class EvidencedSource(_Part):
    """Where the tree came from; see `ashat.deployment.events.Source`. `artifact` is there only where it is one."""

    name: str
    commit: str | None
    branch: str | None
    dirty: bool
    who: str
    artifact: Artifact | None = None


class EvidencedPublic(_Part):
    """The server on which the checks ran, and the bundle that it ran before (null: nothing)."""

    name: str
    url: str
    ran_before: Digest | None


class EvidencedTarget(_Part):
    """What the target ran while the checks were made: a bundle, nothing (null), or `unknown` says why nobody knows."""

    name: str
    bundle: Digest | None
    unknown: str

    @model_validator(mode="after")
    def _known_or_not(self) -> Self:
        if self.bundle is not None and self.unknown:
            raise ValueError("what the target runs is either known or not")
        return self


class ComparedTree(_Part):
    """The files of a release as they lay on Public's disk, against its bundle; equal digests mean equal trees.

    `release` says which of the two was looked at. `expected` is the digest of what its manifest says, `found` of what
    the disk said.
    """

    release: Literal["new", "old"]
    files: Count
    expected: Digest
    found: Digest


class EvidencedRehearsal(_Part):
    """Forward, back and forward again on Public: how long each switch took until the release was healthy, in ms."""

    outcome: Literal["pass", "fail", "inconclusive"]
    detail: str
    back_ms: list[Count]
    forward_ms: list[Count]
    trees: list[ComparedTree]


class EvidencedSelfTest(_Part):
    """Of the faults that were seeded for one check, at that version of it, how many it caught."""

    version: str
    caught: Count
    seeded: Count

    @model_validator(mode="after")
    def _no_more_than_seeded(self) -> Self:
        if self.caught > self.seeded:
            raise ValueError("more faults caught than seeded")
        return self


class EvidencedFinding(_Part):
    """One thing that a check found; `rule` and `path` are what an allow-list entry would name.

    `unseen`: it was not looked at. `count`: of how many it tells. Format 2 has neither.
    """

    severity: Literal["high", "medium", "low"]
    text: str
    rule: str
    path: str
    unseen: bool = False
    count: Annotated[int, Field(ge=1)] = 1


class EvidencedCheck(_Part):
    """One check's answer: `CheckResult.as_json()` of `tasks.checks.kit.base`, when it was taken, and from where.

    `reused_from` is the digest of the evidence that the answer was taken over from, null where the check was run.
    Figures and series are integers whose names end in their unit or count something.
    """

    name: str
    title: str
    version: str
    outcome: Literal["pass", "fail", "warn", "inconclusive"]
    seen: str
    findings: list[EvidencedFinding]
    inputs: Values
    figures: dict[str, int]
    series: dict[str, list[int]]
    milliseconds: Count
    at: Moment
    reused_from: Digest | None

    @property
    def taken(self) -> datetime:
        """When the answer was taken."""
        return datetime.fromisoformat(self.at)

    def result(self) -> dict[str, Any]:
        """What `CheckResult.from_json` takes: the answer without when and from where."""
        return self.model_dump(mode="json", exclude={"at", "reused_from"})


class Evidence(_Part):
    """The whole document. `began` and `ended` are of this verification; a check that was reused is older.

    `policy` is `Policy.model_dump(mode="json")`, and `policy_digest` its digest. `rehearsal` is null where none was
    made, `self_test` (by the name of the check) where none was. `sbom` is the digest of the list of what the bundle is
    built from, a document beside this one; format 2 has none. `tasks` are the keys of the tasks that it brings; it is
    there only where there are some.
    """

    format: Literal["ashat-evidence/2", "ashat-evidence/3"]
    tool: str
    update_id: str
    attempt: Annotated[int, Field(ge=1)]
    bundle: Digest
    version: str
    source: EvidencedSource | None
    public: EvidencedPublic
    target: EvidencedTarget
    policy: Values
    policy_digest: Digest
    rehearsal: EvidencedRehearsal | None
    self_test: dict[str, EvidencedSelfTest] | None
    began: Moment
    ended: Moment
    outcome: Outcome
    checks: list[EvidencedCheck]
    sbom: Digest | None = None
    tasks: list[str] = []

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Evidence:
        """Read the evidence that `document` spells.

        Raises:
            EvidenceError: it is no evidence, or of a format that this version does not know.
        """
        form = document.get("format")
        if form not in FORMATS:
            if isinstance(form, str) and form.startswith("ashat-evidence/"):
                raise EvidenceError(f"The evidence is of the format {form!r}, which a newer version wrote: upgrade.")
            raise EvidenceError("The document is no evidence: it does not say which format it has.")
        try:
            return cls.model_validate(dict(document))
        except ValidationError as error:
            why = first_misfit(error, "the whole")
            raise EvidenceError(f"The document is no evidence as {form} has it: {why}.") from None

    def document(self) -> dict[str, Any]:
        """The document: what was read, word for word, or what was given."""
        return self.model_dump(mode="json", exclude_unset=True)

    @property
    def canonical(self) -> bytes:
        """Its canonical JSON: the bytes whose sha256 is the digest."""
        return canonical_json(self.document())

    @property
    def digest(self) -> str:
        """The name of the evidence: the sha256 of its canonical JSON."""
        return digest_of(self.document())

    def check(self, name: str) -> EvidencedCheck | None:
        """The answer of the check of that name, if it was asked."""
        return next((check for check in self.checks if check.name == name), None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.policy_digest != digest_of(self.policy):
            raise ValueError("policy_digest must be that of the policy")
        if len({check.name for check in self.checks}) != len(self.checks):
            raise ValueError("a check stands in it once")
        return self


_UNITS = {"_per_mille": (10, "%"), "_us": (1000, "ms"), "_ms": (1, "ms"), "_bytes": (1, "B")}


def figure_in_words(name: str, value: int) -> tuple[str, str]:
    """A figure as a person reads it: its name, and its value with the unit that the name ends in.

    Microseconds are read as milliseconds, and thousandths as per cent: `("p95_us", 1250)` is `("p95", "1.25 ms")`.
    """
    for ending, (divisor, unit) in _UNITS.items():
        if name.endswith(ending) and name != ending:
            number = f"{value / divisor:.2f}".rstrip("0").rstrip(".") if value % divisor else str(value // divisor)
            return name.removesuffix(ending).replace("_", " "), f"{number} {unit}"
    return name.replace("_", " "), str(value)
