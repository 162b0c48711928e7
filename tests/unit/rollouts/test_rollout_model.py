"""A rollout of Mainframes that answer as they like, driven by `decide`, beside a model that keeps each by name."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ashat.rollouts.cohorts import assign, place
from ashat.rollouts.decide import (
    Ask,
    Complete,
    Decision,
    OpenNext,
    Pause,
    RollBack,
    Rollout,
    Wait,
    WaveCounts,
    decide,
    needed,
    too_many_failed,
)
from ashat.rollouts.policy import RolloutPolicy

ROLLOUT = "UPD-1/1"
POLICIES = st.fixed_dictionaries(
    {
        "waves": st.sampled_from(
            [
                [{"name": "all", "rest": True}],
                [{"name": "few", "count": 2}, {"name": "all", "rest": True}],
                [{"name": "eu", "label": "region=eu"}, {"name": "half", "percent": 50}, {"name": "all", "rest": True}],
                [{"name": "b", "percent": 30, "ask_after": True}, {"name": "all", "rest": True}],
                "sequential",
            ]
        ),
        "soak_seconds": st.sampled_from([0, 30]),
        "success_percent": st.sampled_from([0, 50, 90, 100]),
        "failure_percent": st.sampled_from([0, 20, 100]),
        "failure_least": st.integers(1, 3),
        "on_failure": st.sampled_from(["pause", "ask", "roll-back-wave", "roll-back-all"]),
        "at_once": st.sampled_from([0, 1, 3]),
        "mainframe_seconds": st.sampled_from([10, 600]),
    }
)


class Fleet(RuleBasedStateMachine):
    """The model: each Mainframe's state by name, and the rollout as a database would keep it."""

    @initialize(policy=POLICIES, size=st.integers(1, 15), regions=st.lists(st.booleans(), min_size=15, max_size=15))
    def begin(self, policy: dict[str, Any], size: int, regions: list[bool]) -> None:
        self.policy = RolloutPolicy.model_validate(policy)
        labels = {f"m{n}": {"region": "eu"} if regions[n] else {} for n in range(size)}
        self.wave = assign(self.policy, ROLLOUT, labels)
        self.state = dict.fromkeys(labels, "waiting")
        self.now = self.opened_at = datetime(2026, 11, 30, tzinfo=UTC)
        self.last_success_at: datetime | None = None
        self.last_answer_at: datetime | None = None
        self.opened, self.standing, self.ended = 1, "running", ""

    def rollout(self) -> Rollout:
        waves = [
            WaveCounts(**Counter(self.state[name] for name, index in self.wave.items() if index == wave))
            for wave in range(self.opened)
        ]
        ahead = sum(index >= self.opened for index in self.wave.values())
        last = (self.opened_at, self.last_success_at, self.standing, self.last_answer_at)
        return Rollout(waves, ahead, *last)  # type: ignore[arg-type]

    def going(self) -> bool:
        return not self.ended

    def running(self) -> bool:
        return not self.ended and self.standing == "running"

    def held(self) -> bool:
        return not self.ended and self.standing != "running"

    @precondition(running)
    @rule(data=st.data())
    def a_mainframe_asks(self, data: st.DataObject) -> None:
        under_way = sum(state == "under_way" for state in self.state.values())
        asks = [name for name, state in self.state.items() if state == "waiting" and self.wave[name] < self.opened]
        if asks and (not self.policy.at_once or under_way < self.policy.at_once):
            self.state[data.draw(st.sampled_from(asks))] = "under_way"

    @precondition(going)
    @rule(data=st.data(), outcome=st.sampled_from(["succeeded", "succeeded", "failed", "unreachable"]))
    def a_mainframe_answers(self, data: st.DataObject, outcome: str) -> None:
        answers = [name for name, state in self.state.items() if state == "under_way"]
        if answers:
            self.hear(data.draw(st.sampled_from(answers)), outcome)

    @precondition(going)
    @rule(data=st.data())
    def an_unreachable_one_answers_late(self, data: st.DataObject) -> None:
        late = [name for name, state in self.state.items() if state == "unreachable"]
        if late:
            self.hear(data.draw(st.sampled_from(late)), "succeeded")

    def hear(self, name: str, outcome: str) -> None:
        self.state[name] = outcome
        if self.wave[name] == self.opened - 1:
            self.last_answer_at = self.now
            if outcome == "succeeded":
                self.last_success_at = self.now

    @precondition(going)
    @rule(number=st.integers(0, 99), eu=st.booleans())
    def a_mainframe_joins(self, number: int, eu: bool) -> None:
        name = f"late{number}"
        if name not in self.state:
            self.state[name] = "waiting"
            self.wave[name] = place(self.policy, ROLLOUT, name, {"region": "eu"} if eu else {})

    @rule(seconds=st.sampled_from([1, 29, 600]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(running)
    @rule()
    def a_person_pauses(self) -> None:
        self.standing = "paused"

    @precondition(held)
    @rule()
    def a_person_resumes_and_accepts_what_they_saw(self) -> None:
        for name, state in self.state.items():
            if state in ("failed", "unreachable") and self.wave[name] < self.opened:
                self.state[name] = "accepted"
        self.standing, self.opened_at = "running", self.now

    @precondition(going)
    @rule()
    def it_is_decided(self) -> None:
        self.step()

    def step(self) -> Decision:
        rollout, before = self.rollout(), self.opened
        decision = decide(self.policy, rollout, self.now)
        match decision:
            case Wait(until=None):
                assert self.standing != "running"
            case Wait(until=until):
                assert until is not None
                assert until > self.now
                assert too_many_failed(self.policy, rollout) is None
            case OpenNext(through=through):
                assert before <= through < len(self.policy.rules())
                assert too_many_failed(self.policy, rollout) is None
                wave = rollout.waves[-1]
                tested = self.policy.waves == "sequential"
                assert tested or wave.succeeded >= needed(self.policy, wave.size - wave.accepted)
                self.opened, self.opened_at = through + 1, self.now
                self.last_success_at = self.last_answer_at = None
            case Pause():
                self.standing = "paused"
            case Ask():
                self.standing = "asked"
                cohort = self.policy.rules()[before - 1]
                assert self.policy.on_failure == "ask" or cohort.ask_after
            case RollBack(scope=scope, wave=wave_index):
                assert too_many_failed(self.policy, rollout) is not None
                assert self.policy.on_failure == f"roll-back-{scope}"
                assert wave_index < self.opened
                self.ended = "rolled back"
            case Complete():
                assert rollout.ahead == 0
                assert too_many_failed(self.policy, rollout) is None
                self.ended = "completed"
        return decision

    @invariant()
    def nobody_has_it_whose_wave_is_closed(self) -> None:
        if hasattr(self, "state"):
            touched = [name for name, state in self.state.items() if state != "waiting"]
            assert all(self.wave[name] < self.opened for name in touched)

    def teardown(self) -> None:
        """Whatever happened: once each Mainframe answers well and people say yes, it comes to an end."""
        if not hasattr(self, "state"):
            return
        for _ in range(4 * len(self.policy.rules()) + 4):
            if self.ended:
                return
            for name, index in self.wave.items():
                if index < self.opened and self.state[name] in ("waiting", "under_way"):
                    self.hear(name, "succeeded")
            decision = self.step()
            if isinstance(decision, Wait) and decision.until:
                self.now = decision.until
            elif self.standing == "asked" and self.policy.rules()[self.opened - 1].ask_after:
                self.opened, self.standing, self.opened_at = self.opened + 1, "running", self.now
            elif self.standing != "running":
                self.a_person_resumes_and_accepts_what_they_saw()
                if self.policy.waves == "sequential" and self.opened == len(self.policy.rules()) - 1:
                    self.opened += 1
        raise AssertionError("it never ends")


Fleet.TestCase.settings = settings(max_examples=120, stateful_step_count=40)
TestARollout = Fleet.TestCase
