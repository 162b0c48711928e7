"""Health: the program lives and is ready over a settling window, started in time, is the release that was pushed, and
does not restart. Which release it is, it says itself, or its node vouches for it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ashat.client.node import none_if_not_found
from ashat.protocol.messages import App, NodeState
from ashat.protocol.probes import ProcessProbe
from tasks.checks.kit.base import Check, CheckContext, CheckResult, Finding, one_line
from tasks.checks.kit.host import BUSY_PER_MILLE, busy_in_words, busy_over
from tasks.checks.kit.http import Answer, NoAnswerError, Web

INTERVAL_SECONDS = 0.25
ANSWER_SECONDS = 5.0
ANSWER_BYTES = 64 * 1024
MIN_LOOKS = 4
MIN_WAIT_SECONDS = 1.0


@dataclass
class _Look:
    """What one look found wrong, "" if nothing: with its life, and with its readiness."""

    alive: str
    ready: str

    @property
    def well(self) -> bool:
        return not (self.alive or self.ready)


@dataclass
class _Seen:
    looks: list[_Look] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    bundles: Counter[str] = field(default_factory=Counter)
    answers_us: list[int] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return all(look.well for look in self.looks)


class HealthCheck(Check):
    """Asks the program and its node, again and again for `[health] settle_seconds`, whether the program is healthy.

    Where the node knows when the program started, `[health] start_seconds` count from there. Restarts count from when
    the release was switched to, so that a crash loop that came to rest before anybody looked is seen, too.
    """

    name = "health"
    title = "Server health"
    version = "4"
    order = 10

    def run(self, context: CheckContext) -> CheckResult:
        """Wait until the program is healthy; watch it settle; then compare what was seen with what was promised."""
        health = context.raos.health
        before, processes = context.public.state(), _processes(context)
        seen = _Seen()
        with Web(context) as web:
            began = time.monotonic()
            first = _wait_until_well(context, web, _left_to_start(before, health.start_seconds))
            waited_ms = round((time.monotonic() - began) * 1000)
            if first.well:
                ends = time.monotonic() + health.settle_seconds
                while time.monotonic() < ends or (len(seen.looks) < MIN_LOOKS and seen.well):
                    seen.looks.append(_look(context, web, seen))
                    context.sleep(INTERVAL_SECONDS)
        after, left = context.public.state(), _processes(context)
        findings = [
            *([] if first.well else [_never_well(context, first)]),
            *_of_node(context, before.app, after),
            *_of_looks(seen),
            *_of_identity(context, seen),
            *([] if health.expect == "release" or seen.bundles else _of_process(context, left)),
        ]
        late = list(start_findings(health.start_seconds, after.app))
        figures = _figures(seen, after.app) | _of_machine(left) | {"waited_ms": waited_ms}
        what = "healthy and ready" if health.ready else "healthy"
        started = "" if after.app.healthy_after_ms is None else f", up {after.app.healthy_after_ms} ms after its start"
        often = f"{len(seen.looks)} of {len(seen.looks)} looks {what} over {health.settle_seconds:g} s"
        whose = f"version {context.raos.raos.version}" if seen.versions else "the release that its node started"
        good = f"{often}, {whose}{started}"
        series = {"health_us": seen.answers_us, "memory_bytes": [processes.memory_bytes, left.memory_bytes]}
        excuse = _busy_host(context, late)
        if excuse and not any(finding.severity == "high" for finding in findings):
            findings += [replace(finding, severity="low") for finding in late]
            return self.inconclusive(excuse, findings, inputs=_inputs(context), figures=figures, series=series)
        return self.conclude(good, [*findings, *late], inputs=_inputs(context), figures=figures, series=series)


def _left_to_start(state: NodeState, start_seconds: float) -> float:
    """Compute the seconds that the program still has to become healthy, by its node's clock."""
    if state.app.started_at is None:
        return start_seconds
    age = (state.time - state.app.started_at).total_seconds()
    return max(min(start_seconds - age, start_seconds), MIN_WAIT_SECONDS)


def _wait_until_well(context: CheckContext, web: Web, seconds: float) -> _Look:
    """Look until nothing is wrong, or `seconds` are over; return the last look."""
    ends = time.monotonic() + seconds
    while True:
        look = _look(context, web, _Seen())
        if look.well or time.monotonic() >= ends:
            return look
        context.sleep(INTERVAL_SECONDS)


def _look(context: CheckContext, web: Web, seen: _Seen) -> _Look:
    health = context.raos.health
    probe = context.public.probe_health()
    alive = _ask_life(context, web, seen)
    if not probe.healthy:
        alive = alive or f"the node says: {one_line(probe.detail) or probe.status}"
    ready = "" if alive or health.ready is None else _ask(web, health.ready)[0]
    return _Look(alive, ready)


def _ask_life(context: CheckContext, web: Web, seen: _Seen) -> str:
    """Find what is wrong with the answer at the health path; note the version and the bundle that it reports."""
    trouble, answer = _ask(web, context.raos.health.path)
    if answer is None:
        return trouble
    seen.answers_us.append(answer.us)
    told, why = _object(answer)
    if context.raos.health.expect == "release":
        trouble = trouble or why
        told = told if why else {"version": None, "bundle": None} | told
    if "version" in told:
        seen.versions[str(told["version"])] += 1
    if "bundle" in told:
        seen.bundles[str(told["bundle"])] += 1
    return trouble


def _object(answer: Answer) -> tuple[dict[str, Any], str]:
    """Read the JSON object that the answer is, or say why it is none."""
    try:
        reply = answer.json()
    except ValueError as error:
        return {}, f"the answer is {error}"
    return (reply, "") if isinstance(reply, dict) else ({}, "the answer is JSON, but no object")


def _ask(web: Web, path: str) -> tuple[str, Answer | None]:
    """Request `path`: what is wrong with the answer ("" where it is a 2xx), and the answer."""
    try:
        answer = web.ask(path, seconds=ANSWER_SECONDS, limit=ANSWER_BYTES)
    except NoAnswerError as error:
        return f"{path}: {error}", None
    if 200 <= answer.status < 300:
        return "", answer
    detail = one_line(_object(answer)[0].get("detail") or "")
    return f"{path}: status {answer.status}" + (f", {detail}" if detail else ""), answer


def _never_well(context: CheckContext, look: _Look) -> Finding:
    health = context.raos.health
    limit = f"within {health.start_seconds:g} s of its start"
    if look.alive:
        return Finding("high", f"not healthy {limit}: {look.alive}")
    return Finding("high", f"not ready {limit}, though it lives ({health.path} is well): {look.ready}")


def _of_looks(seen: _Seen) -> Iterator[Finding]:
    dead = [look.alive for look in seen.looks if look.alive]
    unready = [look.ready for look in seen.looks if look.ready]
    if dead:
        yield Finding("high", f"{len(dead)} of {len(seen.looks)} looks were not healthy; the last: {dead[-1]}")
    if unready:
        often = f"{len(unready)} of {len(seen.looks)} looks found it alive, but not ready"
        yield Finding("high", f"{often}; the last: {unready[-1]}")


def _of_identity(context: CheckContext, seen: _Seen) -> Iterator[Finding]:
    path, expected = context.raos.health.path, context.raos.raos.version
    for version in sorted(seen.versions.keys() - {expected}):
        reported = "no version" if version == "None" else f"version {one_line(version, 60)}"
        yield Finding(
            "high", f"{path} reports {reported}, but raos.toml says {expected}: an old process still answers there"
        )
    for bundle in sorted(seen.bundles.keys() - {context.bundle}):
        reported = "no bundle; report ASHAT_BUNDLE there" if bundle == "None" else f"bundle {one_line(bundle)[:12]}"
        yield Finding("high", f"{path} reports {reported}, but {context.bundle[:12]} was pushed")


def _processes(context: CheckContext) -> ProcessProbe:
    old = ProcessProbe(detail="its node tells nothing of processes: update it")
    return none_if_not_found(context.public.probe_process) or old


def _of_process(context: CheckContext, probe: ProcessProbe) -> Iterator[Finding]:
    """Find what the node cannot vouch for, of a program that does not say itself which release it is."""
    silent = f"{context.raos.health.path} reports no bundle"
    if probe.bundle is None:
        why = one_line(probe.detail) or "no reason given"
        yield Finding("medium", f"nobody vouches for the release that answers: {silent}, and {why}")
    elif probe.bundle != context.bundle:
        yield Finding("high", f"the node started the program from {probe.bundle[:12]}, not from {context.bundle[:12]}")
    elif probe.answers is None:
        hidden = f"the node may not look into {probe.unseen} of its {probe.processes} processes"
        yield Finding("medium", f"nobody vouches for what answers: {silent}, and {hidden}")
    elif not probe.answers:
        other = "no process that the node started takes connections at the program's address"
        yield Finding(
            "high", f"something else answers: {other}, and {silent}; end it, or have the program report ASHAT_BUNDLE"
        )


def _of_node(context: CheckContext, before: App, after: NodeState) -> Iterator[Finding]:
    if after.current is None or after.current.bundle != context.bundle:
        runs = after.current.bundle[:12] if after.current else "nothing"
        yield Finding("high", f"the server runs {runs}, not {context.bundle[:12]}: push it again")
    earlier, all_in_all = _ends(before), _ends(after.app)
    why = f"; the last time, {one_line(after.app.failure)}" if after.app.failure else ""
    if all_in_all > earlier or (before.pid is not None and before.pid != after.app.pid):
        often = f"{all_in_all - earlier} times " if all_in_all - earlier > 1 else ""
        yield Finding("high", f"the program ended and was restarted {often}while it was watched{why}: read its log")
    if 0 < earlier <= all_in_all:
        often = f"{earlier} times" if earlier > 1 else "once"
        when = "after it was switched to and before it was watched"
        yield Finding("high", f"the program ended and was restarted {often} {when}{why}: read its log")


def _ends(app: App) -> int:
    return app.restarts + (app.status == "backing-off")


def start_findings(start_seconds: float, app: App) -> Iterator[Finding]:
    """Compare how long the program took to start, as its node saw it, with raos.toml."""
    if app.status == "hook":
        yield Finding("low", "the node does not run the program itself: when it started, and restarts, are not seen")
    elif app.healthy_after_ms is None:
        yield Finding("low", "how long the program took to start is not known: its node did not see it become healthy")
    elif app.healthy_after_ms > start_seconds * 1000:
        took = f"the program took {app.healthy_after_ms / 1000:.1f} s from its start until it was healthy"
        yield Finding("high", f"{took}, over the {start_seconds:g} s of raos.toml")


def _busy_host(context: CheckContext, late: list[Finding]) -> str:
    """Say that a late start may be due to its busy host, on which the release before was late each time; "" if not."""
    starts = [block.start_ms for block in context.rehearsal.of("old")]
    busy, limit_ms = busy_over(context.rehearsal.blocks), context.raos.health.start_seconds * 1000
    as_before = bool(starts) and all(ms is not None and ms > limit_ms for ms in starts)
    if not as_before or (busy or 0) < BUSY_PER_MILLE or not late or late[0].severity != "high":
        return ""
    return f"too noisy to tell: {late[0].text}, and so did the release before{busy_in_words(busy)}"


def _figures(seen: _Seen, app: App) -> dict[str, int]:
    figures = {
        "looks": len(seen.looks),
        "not_healthy": sum(bool(look.alive) for look in seen.looks),
        "not_ready": sum(bool(look.ready) for look in seen.looks),
        "slowest_us": max(seen.answers_us, default=0),
    }
    if app.status != "hook":
        figures["restarts"] = _ends(app)
    if app.healthy_after_ms is not None:
        figures["start_ms"] = app.healthy_after_ms
    return figures


def _of_machine(probe: ProcessProbe) -> dict[str, int]:
    if probe.bundle is None:
        return {}
    counts = {"processes": probe.processes, "threads": probe.threads, "open_files": probe.open_files}
    return counts | {"memory_kib": probe.memory_bytes // 1024, "addresses": len(probe.listening)}


def _inputs(context: CheckContext) -> Mapping[str, Any]:
    health = context.raos.health
    return {
        "path": health.path,
        "ready": health.ready,
        "expect": health.expect,
        "start_ms": round(health.start_seconds * 1000),
        "settle_ms": round(health.settle_seconds * 1000),
        "version": context.raos.raos.version,
    }
