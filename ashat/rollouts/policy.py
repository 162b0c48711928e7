"""Define how a release reaches the fleet: its waves, when the next one opens, and what stops it.

It is kept as a Prefect block (`blocks.rollout_policy`). Shares are whole percent, durations whole seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ashat.common.canonical_json import digest_of
from ashat.common.text import cut, printable, require_visible
from ashat.errors import PolicyError, UsageError
from ashat.rollouts.labels import parse_label
from ashat.rollouts.sequential import Sequential

MAX_WAVES = 20
MAX_SECONDS = 30 * 86400
MAX_AT_ONCE = 1_000_000
MAX_COUNT = 10_000_000
NAME_LENGTH = 40
LINE_LENGTH = 300
_ASKS = ", then ask"
_NUMBER = re.compile(r"(?P<number>[0-9]{1,9})\s?(?P<percent>%)?")

OnFailure = Literal["pause", "ask", "roll-back-wave", "roll-back-all"]


class WaveRule(BaseModel):
    """Say which Mainframes are in a wave, by exactly one of count, percent, label and rest.

    A Mainframe is in the first wave, in the policy's order, that takes it (`ashat.rollouts.cohorts`). A wave may be
    written in a line, as `spelled` spells it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(title="Name", description="What the wave is called in tables, such as canary.")
    count: int | None = Field(
        default=None, ge=1, le=MAX_COUNT, title="Count", description="So many Mainframes of those left."
    )
    percent: int | None = Field(
        default=None, ge=1, le=100, title="Percent", description="So much of the whole fleet, its own share."
    )
    label: str | None = Field(
        default=None, title="Label", description="All who have this label and are left, such as ring=internal."
    )
    rest: bool = Field(default=False, title="The rest", description="All who are left: the last wave.")
    ask_after: bool = Field(
        default=False, title="Ask after it", description="After this wave people say whether it goes on, as in A/B."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_line(cls, data: Any) -> Any:
        return _read_line(data) if isinstance(data, str) else data

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not name.strip() or len(name) > NAME_LENGTH:
            raise ValueError(f"a wave's name has 1 to {NAME_LENGTH} characters")
        return require_visible(name)

    @field_validator("label")
    @classmethod
    def _labelled(cls, label: str | None) -> str | None:
        try:
            return None if label is None else "=".join(parse_label(label))
        except UsageError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _one_selector(self) -> Self:
        chosen = [
            name
            for name, value in (("count", self.count), ("percent", self.percent), ("label", self.label))
            if value is not None
        ]
        chosen += ["rest"] if self.rest else []
        if len(chosen) != 1:
            has = f"has {' and '.join(chosen)}" if chosen else "has none of them"
            raise ValueError(f"the wave '{self.name}' takes exactly one of count, percent, label and rest; it {has}")
        return self

    @property
    def selector(self) -> str:
        """Say in a few words whom the wave takes, such as `10 %`."""
        if self.rest:
            return "the rest"
        if self.label is not None:
            return self.label
        if self.percent is not None:
            return f"{self.percent} %"
        return f"{self.count} Mainframe{'' if self.count == 1 else 's'}"

    @property
    def spelled(self) -> str:
        """Write the wave in a line: `canary: 5`, `early: 10 %`, `internal: ring=internal`, `everyone: rest`; and
        `, then ask` after it where people are asked."""
        taken = "rest" if self.rest else self.label or (f"{self.percent} %" if self.percent else str(self.count))
        return f"{self.name}: {taken}{_ASKS if self.ask_after else ''}"


def _read_line(text: str) -> dict[str, Any]:
    """Read a wave as `WaveRule.spelled` writes it.

    Raises:
        ValueError: the line says no wave.
    """
    asks = text.endswith(_ASKS)
    name, colon, taken = text.removesuffix(_ASKS).rpartition(":")
    taken = taken.strip()
    if not colon or len(text) > LINE_LENGTH:
        raise ValueError(f"a wave is written as NAME: WHO, such as canary: 5; not {cut(printable(text), 60)!r}")
    wave: dict[str, Any] = {"name": name.strip(), "ask_after": asks}
    if taken == "rest":
        return {**wave, "rest": True}
    if "=" in taken:
        return {**wave, "label": taken}
    if number := _NUMBER.fullmatch(taken):
        return {**wave, "percent" if number["percent"] else "count": int(number["number"])}
    raise ValueError(
        f"the wave '{cut(printable(name.strip()), 60)}' takes a count such as 5, a share such as 10 %, a label such as "
        f"region=eu, or rest; not {cut(printable(taken), 60)!r}"
    )


_EVERYONE = WaveRule(name="everyone", rest=True)


class Limits(BaseModel):
    """Hold when a rollout goes on, what stops it, and how fast it may be. Durations are seconds, shares percent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    soak_seconds: int = Field(
        default=600,
        ge=0,
        le=MAX_SECONDS,
        title="Soak",
        description="Seconds from a wave's last success until it counts as well.",
    )
    success_percent: int = Field(
        default=90,
        ge=0,
        le=100,
        title="Goes on from",
        description="Percent of a wave's Mainframes that must run the release before it goes on.",
    )
    failure_percent: int = Field(
        default=5,
        ge=0,
        le=100,
        title="Stops above",
        description="Percent of a wave's answers that may be failures. 100: no share stops it.",
    )
    failure_least: int = Field(
        default=3,
        ge=1,
        le=MAX_COUNT,
        title="Failures at least",
        description="So many Mainframes of a wave must have failed before the share of failures stops it.",
    )
    on_failure: OnFailure = Field(
        default="pause",
        title="When it stops",
        description="Pause; ask people; roll the wave back; or roll all waves back.",
    )
    at_once: int = Field(
        default=100,
        ge=0,
        le=MAX_AT_ONCE,
        title="At once",
        description="So many Mainframes may be under way at the same time. 0: no limit.",
    )
    mainframe_seconds: int = Field(
        default=3600,
        ge=0,
        le=MAX_SECONDS,
        title="Time for a Mainframe",
        description="Seconds after which a Mainframe that was offered the release and said nothing is unreachable.",
    )


class RolloutPolicy(Limits):
    """Hold how a release reaches the fleet. Durations are whole seconds, shares whole percent."""

    waves: tuple[WaveRule, ...] | Literal["sequential"] = Field(
        default=(
            WaveRule(name="canary", count=5),
            WaveRule(name="early", percent=10),
            WaveRule(name="everyone", rest=True),
        ),
        title="Waves",
        description="Who gets the release when, in this order; the last wave takes the rest. Or: sequential.",
    )
    sequential: Sequential = Field(
        default=Sequential(), title="Sequential test", description="What waves = sequential tests, and how surely."
    )

    @field_validator("waves", mode="before")
    @classmethod
    def _list_or_word(cls, waves: Any) -> Any:
        if isinstance(waves, str) and waves != "sequential":
            raise ValueError("it is a list of waves, or the word sequential")
        return waves

    @field_validator("waves")
    @classmethod
    def _add_up(cls, waves: tuple[WaveRule, ...] | Literal["sequential"]) -> tuple[WaveRule, ...] | str:
        if waves == "sequential":
            return waves
        if not waves:
            raise ValueError("there are no waves; one wave with rest = true reaches everybody at once")
        if len(waves) > MAX_WAVES:
            raise ValueError(f"there are {len(waves)} waves, and {MAX_WAVES} is the most")
        names = [wave.name for wave in waves]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two waves are called '{doubled}'; give each a name of its own")
        selectors = [wave.label for wave in waves if wave.label is not None]
        if twice := next((label for label in selectors if selectors.count(label) > 1), None):
            raise ValueError(f"two waves take {twice}, and the second would be empty")
        if not waves[-1].rest:
            raise ValueError(f"nobody takes the rest: the last wave, '{waves[-1].name}', needs rest = true")
        if early := next((wave.name for wave in waves[:-1] if wave.rest), None):
            raise ValueError(f"the wave '{early}' takes the rest, so the waves after it would be empty")
        if len(waves) > 1 and waves[-1].ask_after:
            raise ValueError(f"after '{waves[-1].name}' there is nothing left to ask about; take ask_after out")
        share = sum(wave.percent or 0 for wave in waves)
        if share >= 100:
            raise ValueError(f"the waves add up to {share} %, which leaves nobody for '{waves[-1].name}'")
        return waves

    @model_validator(mode="after")
    def _can_go_on(self) -> Self:
        if self.mainframe_seconds == 0 and (self.success_percent or self.waves == "sequential"):
            raise ValueError("mainframe_seconds = 0 waits for nobody, so no wave could go on; give it some time")
        return self

    @classmethod
    def all_at_once(cls, mainframe_seconds: int = 300) -> Self:
        """Return the policy of one wave, everyone, that nothing stops: it ends when all answered or time is over."""
        return cls(
            waves=(_EVERYONE,),
            soak_seconds=0,
            success_percent=0,
            failure_percent=100,
            at_once=0,
            mainframe_seconds=min(mainframe_seconds, MAX_SECONDS),
        )

    def rules(self) -> tuple[WaveRule, ...]:
        """Return the waves in order; those of a sequential test are a first one that is enough where nothing fails,
        one more for each failure that has to be made up for, and the rest."""
        if self.waves == "sequential":
            return _waves_of_test(self.sequential)
        return tuple(wave for wave in self.waves if isinstance(wave, WaveRule))

    @property
    def stops(self) -> bool:
        """Tell whether any number of failures would stop it."""
        return self.waves == "sequential" or self.failure_percent < 100 or self.success_percent > 0

    @property
    def digest(self) -> str:
        """Compute the sha256 of its canonical JSON."""
        return digest_of(self.model_dump(mode="json"))


@lru_cache(maxsize=32)
def _waves_of_test(test: Sequential) -> tuple[WaveRule, ...]:
    first, step = test.sizes()
    tests = [WaveRule(name=f"test {n + 1}", count=step if n else first) for n in range(MAX_WAVES - 1)]
    return (*tests, WaveRule(name="the rest", rest=True))


def policy_of(data: Mapping[str, Any]) -> RolloutPolicy:
    """Return the policy that a document spells.

    Raises:
        PolicyError: it does not fit; one line that names the key and says why.
    """
    try:
        return RolloutPolicy.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        steps = [step for step in first["loc"] if not str(step).startswith(("tuple[", "literal["))]
        where = ".".join(str(step + 1) if isinstance(step, int) else printable(step) for step in steps)
        parts: dict[str, type[BaseModel]] = {"waves": WaveRule, "sequential": Sequential}
        part = parts.get(str(steps[0]), RolloutPolicy) if len(steps) > 1 else RolloutPolicy
        known = f" Known are {', '.join(part.model_fields)}." if first["type"] == "extra_forbidden" else ""
        reason = "there is no such key" if known else first["msg"].removeprefix("Value error, ").rstrip(".")
        raise PolicyError(f"{cut(where, 80)}: {reason}.{known}" if where else f"{reason}.") from None


def policy_of_form(fields: Mapping[str, Any]) -> RolloutPolicy:
    """Return the policy that the form of the Prefect block (`blocks.rollout_policy`) spells; what it leaves out is as
    built in.

    Raises:
        PolicyError: it does not fit; one line that names the field and says why.
    """
    given = {name: fields[name] for name in Limits.model_fields if name in fields}
    test = {name: fields[name] for name in Sequential.model_fields if name in fields}
    if fields.get("size_waves_by_a_test"):
        return policy_of({**given, "waves": "sequential", "sequential": test})
    waves = {"waves": fields["waves"]} if "waves" in fields else {}
    return policy_of({**given, **waves, "sequential": test})
