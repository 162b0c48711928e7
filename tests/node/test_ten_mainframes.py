"""Ten Mainframes with the sample program, through all that becomes of a rollout: waves, a failure, a retry, a pause, an
owner who is asked, windows and a freeze, a release that is carried by hand, an end before the end. After each step the
table says of each Mainframe what is true, and why."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ashat.client.carry import export, find_mainframe
from ashat.client.node import NodeClient
from ashat.common.identifiers import licence_id, new_key
from ashat.protocol.carried import CarriedReport
from ashat.protocol.fleet import FreezeRequest, RolloutMember, RolloutState
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import Offer, Role
from ashat.rollouts.decide import Ask, Complete, OpenNext, Pause, RollBack, decide
from ashat.rollouts.policy import RolloutPolicy, WaveRule
from tests.support.builders.signers import People, install_root
from tests.support.processes.node import (
    EXAMPLE,
    NodeProcess,
    demanding_region,
    example_app,
    example_database,
    push,
)
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import eventually, mainframe, perform, running

NEVER_NOW = "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29 PT1M UTC"
ALWAYS = "FREQ=DAILY P1D UTC"
NO_NETWORK = "http://127.0.0.1:9"
POLICY = RolloutPolicy(
    waves=(
        WaveRule(name="internal", label="ring=internal"),
        WaveRule(name="early", label="ring=early"),
        WaveRule(name="everyone", rest=True),
    ),
    soak_seconds=0,
    success_percent=60,
    failure_least=1,
    failure_percent=0,
    mainframe_seconds=600,
)
# Starts no release that holds a file `not-here`, until somebody has mended the machine.
PICKY = "test ! -e not-here -o -e $RAOS_DATA/mended || {{ echo 'not here'; exit 1; }}; exec {} raos.py"
INTERNAL, EARLY = ("ada", "bob"), ("cyd", "dan", "eve")
NAMES = (*INTERNAL, *EARLY, "fay", "gus", "hal", "ivy", "jim")


class Machine(NodeProcess):
    """A Mainframe with the sample program; `picky` as above, `away`: without a network."""

    def __init__(self, directory: Path, world: World, *, picky: bool = False, away: bool = False, **rules: Any) -> None:
        self.key = new_key()
        world.client.put_licence(LicenceRequest(key=self.key, name=directory.name))
        app = example_app()
        super().__init__(
            directory,
            role=Role.MAINFRAME,
            app={**app, "command": ["/bin/sh", "-c", PICKY.format(sys.executable)]} if picky else app,
            database=example_database(),
            settings={"poll_interval": 0.5, "trust_root": str(world.root), **rules},
            omega=NO_NETWORK if away else world.omega.url,
            licence_key=self.key,
        )

    @property
    def runs(self) -> str | None:
        with self.client() as client:
            current = client.state().current
        return current.update_id if current else None


class World:
    """An OMEGA, who signs for it, and ten Mainframes."""

    def __init__(self, directory: Path, omega: NodeProcess, client: NodeClient) -> None:
        self.directory, self.omega, self.client, self.people = directory, omega, client, People()
        self.root = install_root(omega, self.people, directory / "root.json")
        self.fleet: dict[str, Machine] = {}
        self.rollout = ""

    def begin(self, update: str, policy: RolloutPolicy, **files: str) -> None:
        """Have OMEGA run another release, and begin to roll it out."""
        source = self.directory / update
        shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
        for name, content in {"mark": update, **files}.items():
            (source / name).write_text(content)
        wanted, _ = self.people.promotion(self.client, push(self.client, source), update)
        assert perform(self.client, wanted).status == "succeeded"
        offer = Offer.model_validate(running(self.client), from_attributes=True)
        self.rollout = self.client.begin_rollout(f"{update}.1.{offer.release_seq}", offer, policy).id

    def go_on(self, what: str, until: Callable[[RolloutState], object]) -> RolloutState:
        """Do what follows, as the `approve` flow does, until that is true of the rollout."""

        def look() -> RolloutState | None:
            seen = self.client.rollout(self.rollout)
            if until(seen):
                return seen
            if seen.status == "running":
                self._act(seen)
            return None

        logs = lambda: "\n".join(f"{name}: {each.log()[-600:]}" for name, each in self.fleet.items())  # noqa: E731
        try:
            return eventually(look, what, seconds=120)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.client.rollout(self.rollout)}\n{logs()}") from None

    def _act(self, seen: RolloutState) -> None:
        if not seen.opened:
            self.client.open_waves(seen.id, 0, "it begins")
            return
        match decide(seen.policy, seen.as_rollout(), seen.at):
            case OpenNext(through, why):
                self.client.open_waves(seen.id, through, why)
            case Pause(why) | RollBack(why=why) | Ask(why):
                self.client.decide_rollout(seen.id, "pause", why)
            case Complete(why):
                self.client.decide_rollout(seen.id, "complete", why)

    def member(self, name: str) -> RolloutMember:
        """How a Mainframe stands in the rollout."""
        identity = licence_id(self.fleet[name].key)
        (found,) = [each for each in self.client.rollout_members(self.rollout, ()) if each.id == identity]
        return found

    def stand(self, *names: str) -> set[str]:
        """How those Mainframes stand."""
        return {self.member(name).state for name in names}

    def carry(self, name: str) -> None:
        """Carry what OMEGA offers to a Mainframe by hand, and its report back."""
        away, update = self.fleet[name], running(self.client).update_id
        file, report = self.directory / f"{update}.carried", self.directory / f"{update}.json"
        export(self.client, update, None, find_mainframe(self.client, name), file)
        done = ashat_node("import", file, "--config", away.config, "--report", report)
        assert done.returncode == 0, done.stderr
        assert away.runs == update
        self.client.put_carried_report(CarriedReport.model_validate_json(report.read_bytes()))

    def install(self, name: str, update: str) -> None:
        """Be the owner, who is asked."""
        done = ashat_node("install", update, "--config", self.fleet[name].config)
        assert done.returncode == 0, done.stderr

    def check(self, **runs: tuple[str, ...]) -> None:
        """Those Mainframes run those updates, and the table says the same of each; nobody is there twice."""
        wanted = {name: update.replace("_", "-") for update, names in runs.items() for name in names}
        assert set(wanted) == set(NAMES)
        assert {name: each.runs for name, each in self.fleet.items()} == wanted
        members = self.client.rollout_members(self.rollout, ())
        assert sorted(each.name for each in members) == sorted(NAMES)
        newest = running(self.client).update_id
        assert {each.name for each in members if each.state == "succeeded"} == {
            name for name, update in wanted.items() if update == newest
        }
        seen = self.client.rollout(self.rollout)
        assert seen.counts.succeeded == sum(update == newest for update in wanted.values())
        assert seen.counts.size == len(NAMES)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("ten")
    odd: dict[str, dict[str, Any]] = {
        "bob": {"picky": True},
        "cyd": {"install": "ask"},
        "dan": {"windows": [NEVER_NOW]},
        "hal": {"away": True},
    }
    with ExitStack() as stack:
        omega = stack.enter_context(demanding_region(directory / "omega"))
        world = World(directory, omega, stack.enter_context(omega.client()))
        for name in NAMES:
            world.fleet[name] = stack.enter_context(Machine(directory / name, world, **odd.get(name, {})))
            ring = "internal" if name in INTERNAL else "early" if name in EARLY else "all"
            world.client.label(licence_id(world.fleet[name].key), {"ring": ring})
        yield world


@pytest.mark.timeout(600)
def test_the_table_is_true_whatever_becomes_of_a_rollout(world: World) -> None:
    everybody_at_once_but_for_those_who_wait(world)
    waves_with_a_failure_a_retry_and_a_pause(world)
    an_end_before_the_end(world)


def everybody_at_once_but_for_those_who_wait(world: World) -> None:
    """An owner is asked, another has a window, one has no network: it is complete when they have it, too."""
    fleet, client = world.fleet, world.client
    world.begin("UPD-1", RolloutPolicy.all_at_once(600))
    others = tuple(name for name in NAMES if name not in ("cyd", "dan", "hal"))
    seen = world.go_on("seven", lambda seen: seen.counts.succeeded == 7 and seen.counts.under_way == 2)
    assert (seen.status, seen.counts.waiting, world.stand(*others)) == ("running", 1, {"succeeded"})
    for name, why in (("cyd", "ashat-node install UPD-1"), ("dan", "waits for a window, the next from 2028-02-29")):
        eventually(lambda name=name, why=why: why in world.member(name).reason, f"why {name} waits", fleet[name])
        assert why in mainframe(client, fleet[name].key).waits
    assert world.member("hal").state == "waiting"
    world.install("cyd", "UPD-1")
    dan = fleet["dan"]
    dan.config.write_text(dan.config.read_text().replace(NEVER_NOW, ALWAYS))
    dan.restart()
    world.go_on("nine", lambda seen: seen.counts.succeeded == 9)
    assert world.member("cyd").reason == world.member("dan").reason == ""
    world.carry("hal")
    assert world.member("hal").reason.startswith("carried by hand")
    world.go_on("its end", lambda seen: seen.status == "completed")
    world.check(UPD_1=NAMES)


def waves_with_a_failure_a_retry_and_a_pause(world: World) -> None:
    """The first wave stops it, is mended and goes on; a person pauses the second; of the last, one is held."""
    fleet, client = world.fleet, world.client
    held = FreezeRequest(
        kind="freeze", scope="mainframe", subject=licence_id(fleet["ivy"].key), time=ALWAYS + " a show"
    )
    freeze = client.add_freeze(held)
    world.begin("UPD-2", POLICY, **{"not-here": ""})
    seen = world.go_on("the failure", lambda seen: seen.status == "paused" and seen.waves[0].succeeded == 1)
    assert [wave.opened_at is not None for wave in seen.waves] == [True, False, False]
    assert "1 failed of 2" in seen.why
    (group,) = client.rollout_failures(world.rollout)
    assert (group.names, "exit code 1" in group.reason) == (["bob"], True)
    rest = tuple(name for name in NAMES if name not in INTERNAL)
    world.check(UPD_1=("bob", *rest), UPD_2=("ada",))
    assert ashat_node("updates", "--config", fleet["cyd"].config).stdout == "Nothing waits here.\n"

    (fleet["bob"].data / "app-data" / "mended").touch()
    assert client.retry_rollout(world.rollout) == 1
    client.decide_rollout(world.rollout, "resume", "the machine is mended")
    seen = world.go_on("the second wave", lambda seen: seen.waves[1].succeeded == 2)
    assert (world.member("bob").state, world.member("bob").tries) == ("succeeded", 1)
    client.decide_rollout(world.rollout, "pause", "the support desk is closed")
    opened = len(client.rollout(world.rollout).opened)
    eventually(lambda: "install UPD-2" in world.member("cyd").reason, "cyd's question", fleet["cyd"])
    world.install("cyd", "UPD-2")
    seen = world.go_on("what was offered before", lambda seen: seen.waves[1].succeeded == 3)
    assert (seen.status, len(seen.opened)) == ("paused", opened), "who was offered it goes on, and nobody else"
    client.decide_rollout(world.rollout, "resume", "it is open")

    world.go_on("the last wave", lambda seen: seen.waves[2].succeeded == 3)
    world.carry("hal")
    seen = world.go_on("its end", lambda seen: seen.status == "completed")
    assert "1 held" in seen.why
    world.check(UPD_1=("ivy",), UPD_2=tuple(name for name in NAMES if name != "ivy"))
    client.remove_freeze(freeze.id)
    world.go_on("who was held", lambda seen: seen.counts.succeeded == 10)
    world.check(UPD_2=NAMES)


def an_end_before_the_end(world: World) -> None:
    """Nobody else gets what was aborted, not even who was asked before; who runs it keeps it."""
    fleet, client = world.fleet, world.client
    world.begin("UPD-3", POLICY.model_copy(update={"success_percent": 100}))
    seen = world.go_on("the question", lambda seen: len(seen.opened) > 1 and "UPD-3" in world.member("cyd").reason)
    eventually(lambda: world.stand("dan", "eve") == {"succeeded"}, "the others of its wave")
    client.decide_rollout(world.rollout, "abort", "the customers complain", "Kim")
    told = lambda: ashat_node("updates", "--config", fleet["cyd"].config).stdout  # noqa: E731
    eventually(lambda: told() == "Nothing waits here.\n", "that nothing waits any more", fleet["cyd"])
    late = ashat_node("install", "UPD-3", "--config", fleet["cyd"].config)
    assert late.returncode != 0
    seen = client.rollout(world.rollout)
    assert (seen.status, seen.why, seen.counts.under_way) == ("aborted", "the customers complain", 0)
    have = ("ada", "bob", "dan", "eve")
    world.check(UPD_2=tuple(name for name in NAMES if name not in have), UPD_3=have)
