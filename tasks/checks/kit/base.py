"""The interface of a check: `Check`, the `CheckContext` that it gets, and the `CheckResult` that it returns."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, Unpack

from ashat.bundle.manifest import Manifest
from ashat.common.canonical_json import canonical_json
from ashat.common.text import cut, printable
from ashat.errors import AshatError
from ashat.raos_toml.schema import RaosToml
from ashat.verification.findings import by_kind, counted
from ashat.verification.policy import Policy
from tasks.checks.kit.baseline import Baseline
from tasks.checks.kit.looks import Look
from tasks.checks.kit.samples import Rehearsal

if TYPE_CHECKING:
    from ashat.client.node import NodeClient

Outcome = Literal["pass", "fail", "warn", "inconclusive"]
Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")
GRACE_SECONDS = 2.0
TEXT_LIMIT = 300
KIND_LIMIT = 50
FINDINGS_LIMIT = 1_000

_log = logging.getLogger(__name__)


class OutOfTimeError(AshatError):
    """A check used up its time."""


@dataclass(frozen=True)
class Finding:
    """One thing a check found. `high` fails the check, `medium` makes it a warning, `low` is for the record.

    A policy may let `medium` fail as well.

    `rule` is the word that an allow-list entry names, `path` what it matches; both are empty where nothing is allowed.
    `unseen` marks what was not looked at, as against what was seen to be wrong. `count` is of how many it tells.
    """

    severity: Severity
    text: str
    rule: str = ""
    path: str = ""
    unseen: bool = False
    count: int = 1

    def as_json(self) -> dict[str, Any]:
        """Return the finding as the evidence keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class CheckResult:
    """The result of a check. `seen` is one line that an operator acts on.

    `inputs` is what the result depends on besides the bundle; `figures` are integers whose names end in their unit
    (`_ms`, `_us`, `_per_mille`) or count something; `series` are raw measurements, in the order in which they were
    taken, named alike. All must have a canonical JSON form.

    Raises:
        ValueError: a float or another value that has none, an empty `seen`, or a pass in spite of a high finding.
    """

    name: str
    title: str
    outcome: Outcome
    seen: str
    findings: tuple[Finding, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, int] = field(default_factory=dict)
    series: Mapping[str, Sequence[int]] = field(default_factory=dict)
    milliseconds: int = 0
    version: str = "1"

    def __post_init__(self) -> None:
        if not self.seen.strip() or "\n" in self.seen:
            raise ValueError(f"{self.name}: 'seen' must be one line, not {self.seen!r}")
        if self.outcome == "pass" and any(finding.severity == "high" for finding in self.findings):
            raise ValueError(f"{self.name}: cannot pass with a finding of high severity")
        canonical_json(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Return the result as the evidence keeps it."""
        return {
            "name": self.name,
            "title": self.title,
            "version": self.version,
            "outcome": self.outcome,
            "seen": self.seen,
            "findings": [finding.as_json() for finding in self.findings],
            "inputs": dict(self.inputs),
            "figures": dict(self.figures),
            "series": {name: list(values) for name, values in self.series.items()},
            "milliseconds": self.milliseconds,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CheckResult:
        """Read the result that `as_json` wrote."""
        findings = tuple(Finding(**finding) for finding in document["findings"])
        return cls(**{**document, "findings": findings})


@dataclass(frozen=True)
class CheckContext:
    """The server, the release and the policy that a check looks at. It stops by `deadline`, on `time.monotonic()`.

    `source` gives the verified bytes of one file of the bundle (`public.files_bytes` those of many). `previous` and
    `previous_raos` are of what ran before, None at the first release, and where that was this very bundle
    (`same_before`). `baseline` is what that answered before this one came, None where nothing noted it. `rehearsal`
    is what came of going back to it and forward again, `first` what the node saw of the release before that, and
    `started` after it; None where it was not asked. `credentials` are the values of the Authorization header that
    `auth` names; they are secret.
    """

    public: NodeClient
    app_url: str
    bundle: str
    manifest: Manifest
    raos: RaosToml
    source: Callable[[str], bytes]
    policy: Policy = field(default_factory=Policy)
    previous: Manifest | None = None
    previous_raos: RaosToml | None = None
    same_before: bool = False
    baseline: Baseline | None = None
    rehearsal: Rehearsal = field(default_factory=Rehearsal)
    first: Look | None = None
    started: Look | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    time_limit: float = 60.0
    deadline: float = float("inf")
    tls: ssl.SSLContext | None = None

    def left(self) -> float:
        """Compute the seconds until the deadline.

        Raises:
            OutOfTimeError: there are none.
        """
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise OutOfTimeError(f"it did not end within its {self.time_limit:g} s")
        return seconds

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until the deadline.

        Raises:
            OutOfTimeError: the deadline came first.
        """
        time.sleep(min(seconds, self.left()))
        self.left()


class Basis(TypedDict, total=False):
    """What a result rests on, as `CheckResult` has it; what is left out is empty."""

    inputs: Mapping[str, Any]
    figures: Mapping[str, int]
    series: Mapping[str, Sequence[int]]


class Check(ABC):
    """One question about a running release.

    A subclass in a file of this package is found by itself. `alone` keeps others from running beside it, and `last` has
    it run when all others have ended; `order` places it in reports; `version` changes whenever the same release could
    get another answer, so that old evidence does not count for new code.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[str] = "1"
    order: ClassVar[int] = 100
    alone: ClassVar[bool] = False
    last: ClassVar[bool] = False

    @abstractmethod
    def run(self, context: CheckContext) -> CheckResult:
        """Look at the release, and return the result. An exception counts as a failure, with its text as the reason."""

    def more_seconds(self, context: CheckContext) -> float:
        """Compute the seconds that this check needs beyond its limit for a bundle of such a size; none by default."""
        return 0.0

    def conclude(
        self,
        good: str,
        findings: Sequence[Finding] = (),
        **basis: Unpack[Basis],
    ) -> CheckResult:
        """Make the result from `findings`: `seen` is the gravest of them, or `good` where none fails or warns."""
        outcome, seen, ranked = summed_up(good, findings)
        return self.result(outcome, seen, ranked, **basis)

    def inconclusive(
        self,
        seen: str,
        findings: Sequence[Finding] = (),
        **basis: Unpack[Basis],
    ) -> CheckResult:
        """Make the result of a check that could not tell."""
        return self.result("inconclusive", seen, findings, **basis)

    def result(
        self,
        outcome: Outcome,
        seen: str,
        findings: Sequence[Finding] = (),
        **basis: Unpack[Basis],
    ) -> CheckResult:
        """Make a result of this check."""
        return CheckResult(
            self.name,
            self.title,
            outcome,
            one_line(seen, 2 * TEXT_LIMIT),
            tuple(findings),
            version=self.version,
            **basis,
        )


def run_check(check: Check, context: CheckContext) -> CheckResult:
    """Run `check` within `context.time_limit`. There is always a result, and nothing that went wrong is a pass.

    The limit grows with the bundle where the check says so and the policy names no limit of its own for it.
    """
    started = time.monotonic()
    if check.name not in context.policy.time_limits:
        context = replace(context, time_limit=context.time_limit + check.more_seconds(context))
    limited = replace(context, deadline=started + context.time_limit)
    answers: list[CheckResult] = []
    worker = threading.Thread(
        target=lambda: answers.append(_guarded(check, limited)), name=f"check {check.name}", daemon=True
    )
    worker.start()
    worker.join(context.time_limit + GRACE_SECONDS)
    if answers:
        result = answers[0]
    else:
        _log.error("check %s ignored its deadline; its thread was left behind", check.name)
        result = check.result("fail", f"it did not end within its {context.time_limit:g} s")
    return replace(result, milliseconds=round((time.monotonic() - started) * 1000))


def _guarded(check: Check, context: CheckContext) -> CheckResult:
    try:
        result = check.run(context)
        if not isinstance(result, CheckResult) or result.name != check.name:
            raise TypeError(f"the check answered {type(result).__name__}, no result of its own")
    except AshatError as error:
        return check.result("fail", f"could not finish: {error}")
    except Exception as error:  # noqa: BLE001 - a check is anybody's code, and must not take the verification down
        _log.exception("check %s broke", check.name)
        return check.result("fail", f"the check itself broke: {type(error).__name__}: {error}")
    return result


def gravest(findings: Iterable[Finding]) -> list[Finding]:
    """Choose what is kept, gravest first: `KIND_LIMIT` findings of a kind, and one that counts the rest of them.

    A kind is a rule at a severity, so that many of one kind hide none of another.
    """
    kinds: dict[tuple[str, str, bool], list[Finding]] = {}
    for finding in _ranked(findings):
        kinds.setdefault((finding.severity, finding.rule, finding.unseen), []).append(finding)
    kept: list[Finding] = []
    for found in list(kinds.values())[: FINDINGS_LIMIT // (KIND_LIMIT + 1)]:
        kept += found[:KIND_LIMIT]
        if rest := sum(each.count for each in found[KIND_LIMIT:]):
            kept.append(
                replace(found[0], text=f"{rest} more{_of(found[0].rule)} are left out here", path="", count=rest)
            )
    return kept


def summed_up(good: str, findings: Iterable[Finding]) -> tuple[Outcome, str, list[Finding]]:
    """Say how a check with these findings ends, in which words, and the findings with the gravest first.

    The words are the gravest finding's, or `good` where none fails or warns.
    """
    ranked = _ranked(findings)
    telling = [finding for finding in ranked if finding.severity != "low"]
    outcome: Outcome = "pass" if not telling else "fail" if telling[0].severity == "high" else "warn"
    return outcome, telling[0].text + _others(telling) if telling else good, ranked


def _of(rule: str) -> str:
    return f" of {rule}" if rule else ""


def _others(telling: Sequence[Finding]) -> str:
    """Count the findings that the first one does not tell of, by kind."""
    first, *rest = telling
    if not rest and first.count == 1:
        return ""
    kinds = [kind for kind in by_kind([replace(first, count=first.count - 1), *rest]) if kind.count]
    more = counted(kinds) if any(kind.rule for kind in kinds) else str(sum(kind.count for kind in kinds))
    return f" (and {more} more)"


def _ranked(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def one_line(text: object, limit: int = TEXT_LIMIT) -> str:
    """Make one printable line of at most `limit` characters of a text, which may come from a stranger."""
    whole = str(text)
    flat = " ".join(printable(whole[: 16 * limit]).split())
    return cut(flat if len(whole) <= 16 * limit else f"{flat} …", limit)
