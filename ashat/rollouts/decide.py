"""Decide what a rollout does next, from the policy, the counters of its waves, and the time.

A wave goes on when so many of its members run the release as `success_percent` asks for, and `soak_seconds` have passed
since the last of them did; where no success is asked for, when nobody is left who may answer. Its time is limited: a
wave has `mainframe_seconds`, and under a limit `at_once` that as often as it has rounds, but no longer than that since
one of its Mainframes was last heard. Who has not answered by then is not waited for, and a soak ends at the latest its
own length after that: a rollout that runs never waits for ever.

Whom a window or a freeze holds, a wave does not wait for, and does not count: they are offered the release once that is
over. A wave of which nobody runs it since all are held is one that too few run.

A wave stops the rollout when at least `failure_least` of its members failed and they are more than `failure_percent` of
those that answered, or when so many failed that `success_percent` cannot be reached any more. Unreachable Mainframes
are no failures: where it is they who are missing, people decide, and nothing is rolled back.

Under `waves = "sequential"` the test of `ashat.rollouts.sequential` judges all waves but the last together.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from ashat.rollouts.policy import RolloutPolicy

Standing = Literal["running", "paused", "asked"]
Scope = Literal["wave", "all"]


class WaveCounts(NamedTuple):
    """Count the Mainframes of a wave by how they stand; each is in exactly one of the seven.

    `accepted` are those that failed or were unreachable when a person saw them and resumed: they are neither any more.
    `held` are those that wait for a window, or for the end of a freeze.
    """

    waiting: int = 0
    under_way: int = 0
    succeeded: int = 0
    failed: int = 0
    unreachable: int = 0
    accepted: int = 0
    held: int = 0

    @property
    def size(self) -> int:
        """Return how many Mainframes the wave has."""
        return sum(self)

    @property
    def answered(self) -> int:
        """Return how many said that they run the release, or that they failed."""
        return self.succeeded + self.failed

    @property
    def open(self) -> int:
        """Return how many may still answer."""
        return self.waiting + self.under_way


class Rollout(NamedTuple):
    """Hold what is known of a rollout when it is decided on.

    `waves` are the counters of the waves that are open, the newest last, at least one; `ahead` is how many Mainframes
    are in the waves after it. `opened_at` is when the newest wave was opened, or resumed after that; `last_success_at`
    when the last of its Mainframes reported success, `last_answer_at` when the last one answered in any way or was
    counted as unreachable. Times are aware.
    """

    waves: Sequence[WaveCounts]
    ahead: int
    opened_at: datetime
    last_success_at: datetime | None = None
    standing: Standing = "running"
    last_answer_at: datetime | None = None


class Wait(NamedTuple):
    """Do nothing until something is reported, at the latest until that time; None: until a person acts."""

    until: datetime | None
    why: str


class OpenNext(NamedTuple):
    """Open the next waves, up to and including the one with the index `through`."""

    through: int
    why: str


class Pause(NamedTuple):
    """Offer the release to nobody else until a person resumes."""

    why: str


class Ask(NamedTuple):
    """Offer the release to nobody else, and ask people whether it goes on."""

    why: str


class RollBack(NamedTuple):
    """Take the release back: from the wave with that index, or from all waves."""

    scope: Scope
    wave: int
    why: str


class Complete(NamedTuple):
    """End the rollout: everybody was offered the release, and answered or had their time."""

    why: str


Decision = Wait | OpenNext | Pause | Ask | RollBack | Complete


class TooManyFailed(NamedTuple):
    """Name the wave, by its index, whose failures stop a rollout, and say why."""

    wave: int
    why: str


def decide(policy: RolloutPolicy, rollout: Rollout, now: datetime) -> Decision:
    """Return what a rollout under `policy` does next."""
    if rollout.standing != "running":
        return Wait(None, "People are asked." if rollout.standing == "asked" else "It is paused.")
    if stopped := too_many_failed(policy, rollout):
        return _stop(policy, stopped)
    wave, name = rollout.waves[-1], _name(policy, len(rollout.waves) - 1)
    deadline = wave_deadline(policy, rollout)
    timed_out = now >= deadline
    if not _enough(policy, rollout) and not (timed_out or not wave.open):
        return Wait(deadline, f"The wave '{name}' is under way: {progress(wave)}.")
    if not _enough(policy, rollout, over=True):
        why = f"The wave '{name}' is over, and too few run it: {progress(wave)}."
        return _people(policy, why)
    soaked = _soak_end(policy, rollout, deadline)
    if soaked is not None and now < soaked:
        return Wait(soaked, f"The wave '{name}' soaks until {soaked.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC.")
    if rollout.ahead == 0:
        if any(each.open for each in rollout.waves) and not timed_out:
            return Wait(deadline, f"The last wave is under way: {progress(wave)}.")
        return Complete(f"Everybody was offered it; the last wave: {progress(wave)}.")
    return _go_on(policy, rollout, name)


def too_many_failed(policy: RolloutPolicy, rollout: Rollout) -> TooManyFailed | None:
    """Name the wave whose failures stop a rollout, and say why; None while no wave's do.

    Each open wave is judged, not the newest alone: a Mainframe of an earlier one may fail late.
    """
    opened, tests = len(rollout.waves), _tests(policy)
    succeeded, failed = _tested(policy, rollout)
    if tests and policy.sequential.verdict(succeeded, failed) == "bad":
        why = f"{failed} failed beside {succeeded} that run it, which the sequential test calls bad."
        return TooManyFailed(min(opened, tests) - 1, why)
    for index in range(tests, opened):
        wave = rollout.waves[index]
        if failures_stop(policy, wave.failed, wave.answered, wave.size - wave.accepted - wave.held):
            return TooManyFailed(index, f"In the wave '{_name(policy, index)}' {progress(wave)}.")
    return None


def failures_stop(policy: RolloutPolicy, failed: int, answered: int, size: int) -> bool:
    """Tell whether so many failures among those of a wave of that size who answered stop the rollout."""
    above = failed >= policy.failure_least and failed * 100 > policy.failure_percent * answered
    return above or (failed > 0 and failed > size - needed(policy, size))


def needed(policy: RolloutPolicy, size: int) -> int:
    """Return how many members of a wave of that size must run the release for it to go on."""
    return -(-policy.success_percent * size // 100)


def wave_deadline(policy: RolloutPolicy, rollout: Rollout) -> datetime:
    """Return until when the newest wave is waited for at the latest, as things stand."""
    a_mainframe, size = timedelta(seconds=policy.mainframe_seconds), rollout.waves[-1].size - rollout.waves[-1].held
    rounds = -(-size // policy.at_once) if policy.at_once else 1
    heard = [time for time in (rollout.last_success_at, rollout.last_answer_at) if time is not None]
    return min(rollout.opened_at + a_mainframe * max(1, rounds), max([rollout.opened_at, *heard]) + a_mainframe)


def progress(wave: WaveCounts) -> str:
    """Say in a line how the Mainframes of a wave stand, leaving out what there is none of."""
    words = ("waiting", "under way", "run it", "failed", "unreachable", "accepted as they are", "held by a freeze")
    parts = [f"{count} {word}" for count, word in zip(wave, words, strict=True) if count]
    return f"{', '.join(parts)} of {wave.size}" if parts else "it has no Mainframes"


def _name(policy: RolloutPolicy, index: int) -> str:
    return policy.rules()[index].name


def _tests(policy: RolloutPolicy) -> int:
    """Count the waves that the sequential test judges together."""
    return len(policy.rules()) - 1 if policy.waves == "sequential" else 0


def _enough(policy: RolloutPolicy, rollout: Rollout, *, over: bool = False) -> bool:
    """Tell whether enough members of the newest wave run the release, while it goes on or when it is `over`."""
    wave, tests = rollout.waves[-1], _tests(policy)
    if len(rollout.waves) <= tests:
        return over or policy.sequential.verdict(*_tested(policy, rollout)) == "good"
    enough = needed(policy, wave.size - wave.accepted - wave.held)
    if wave.held and policy.success_percent:
        enough = max(enough, 1)  # a wave that a freeze holds as a whole says nothing of the release
    return wave.succeeded >= enough and (over or enough > 0)


def _tested(policy: RolloutPolicy, rollout: Rollout) -> tuple[int, int]:
    """Count who runs the release and who failed in the waves that the sequential test judges."""
    tested = rollout.waves[: _tests(policy)]
    return sum(wave.succeeded for wave in tested), sum(wave.failed for wave in tested)


def _soak_end(policy: RolloutPolicy, rollout: Rollout, deadline: datetime) -> datetime | None:
    """Return until when the newest wave soaks; None where nobody in it runs the release."""
    if rollout.last_success_at is None:
        return None
    return min(rollout.last_success_at, deadline) + timedelta(seconds=policy.soak_seconds)


def _go_on(policy: RolloutPolicy, rollout: Rollout, name: str) -> Decision:
    """Open the next wave; under a sequential test so many as it needs, and all once it calls the release good."""
    wave, index, rules = rollout.waves[-1], len(rollout.waves) - 1, policy.rules()
    if rules[index].ask_after and wave.size:
        return Ask(f"The wave '{name}' is over: {progress(wave)}. Shall the next one get it?")
    tests = _tests(policy)
    if index >= tests:
        return OpenNext(index + 1, f"The wave '{name}' is over: {progress(wave)}.")
    succeeded, failed = _tested(policy, rollout)
    if policy.sequential.verdict(succeeded, failed) == "good":
        return OpenNext(tests, f"{failed} failed beside {succeeded} that run it, which the sequential test calls good.")
    counted = f"{failed} failed beside {succeeded} that run it, which the sequential test cannot tell from either"
    if index == tests - 1:
        return _people(policy, f"{counted}, after {tests} waves.")
    more = -(-policy.sequential.missing(succeeded, failed) // policy.sequential.sizes()[1])
    return OpenNext(min(tests - 1, index + max(1, more)), f"{counted} yet.")


def _stop(policy: RolloutPolicy, stopped: TooManyFailed) -> Decision:
    """Answer too many failures as the policy says."""
    match policy.on_failure:
        case "roll-back-wave":
            return RollBack("wave", stopped.wave, stopped.why)
        case "roll-back-all":
            return RollBack("all", stopped.wave, stopped.why)
        case _:
            return _people(policy, stopped.why)


def _people(policy: RolloutPolicy, why: str) -> Decision:
    """Let people decide: they are asked where the policy says so, and otherwise find it paused."""
    return Ask(why) if policy.on_failure == "ask" else Pause(why)
