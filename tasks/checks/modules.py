"""Checks that the program loaded every module of the manifest, in time, from the bytes pushed, and no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeGuard

from ashat.bundle.manifest import FileEntry
from ashat.common.canonical_json import digest_of
from ashat.protocol.probes import ModuleReport
from tasks.checks.kit.base import SEVERITIES, Check, CheckContext, CheckResult, Finding, one_line

LOADED = "loaded"
MOST = 10_000
LISTED = 100
TIMED = 200
_WORDS = 1000
_LONGEST_MS = 1 << 40


def module_digest(files: Iterable[FileEntry]) -> str:
    """Compute a module's identity: sha256 of the canonical JSON of `[[path, sha256], ...]`, sorted by path.

    The running program computes the same from the bytes that it loaded (examples/raos/README.md).
    """
    return digest_of(sorted([file.path, file.sha256] for file in files))


class ModulesCheck(Check):
    """Compares the program's module report, as its node reads it, with the manifest."""

    name = "modules"
    title = "Module load"
    version = "3"
    order = 20

    def run(self, context: CheckContext) -> CheckResult:
        """Compare by name, status, digest and load time."""
        limit = context.raos.modules.load_ms
        expected = {name: module_digest(files) for name, files in context.manifest.modules.items() if name}
        inputs = {"report": context.raos.modules.report, "modules": expected, "load_limit_ms": limit}
        if context.raos.modules.none is not None:
            return self._none(context.raos.modules.none, sorted(expected))
        probe = context.public.probe_modules()
        if not probe.ok:
            reason = one_line(probe.detail) or "no reason given"
            return self.conclude("", [Finding("high", f"the module report cannot be read: {reason}")], inputs=inputs)
        if not expected and not probe.modules:
            return self.inconclusive("the bundle has no Modules/ and the program reports none", inputs=inputs)
        times = load_times(expected, probe.modules)
        slowest = sorted(times, key=lambda name: times[name], reverse=True)
        figures = {"expected": len(expected), "reported": len(probe.modules), "load_sum_ms": sum(times.values())}
        figures |= {f"load_{name}_ms": times[name] for name in slowest[:TIMED]}
        good = f"{len(expected)} of {len(expected)} modules loaded, each from the bytes pushed"
        if slowest:
            good += f", the slowest ({slowest[0]}) in {times[slowest[0]]} ms"
        return self.conclude(good, module_findings(expected, probe.modules, limit), inputs=inputs, figures=figures)

    def _none(self, why: str, pushed: list[str]) -> CheckResult:
        shown = one_line(", ".join(pushed[:LISTED]))
        wrong = f"raos.toml says that there are no modules, but the bundle brings {len(pushed)}: {shown}"
        findings = [Finding("high", wrong)] if pushed else []
        return self.conclude(f"none: {one_line(why)}", findings, inputs={"none": why})


def load_times(expected: Mapping[str, str], reported: Sequence[ModuleReport]) -> dict[str, int]:
    """Read the milliseconds that each module of the manifest took to load; leave out those without a credible time."""
    return {each.name: each.load_ms for each in reported if each.name in expected and _credible(each.load_ms)}


def module_findings(
    expected: Mapping[str, str], reported: Sequence[ModuleReport], limit_ms: int | None
) -> list[Finding]:
    """Find what is wrong with the report; `expected` maps each module to its digest.

    However much is wrong, at most `LISTED` findings name it, and one more counts the rest.
    """
    if len(reported) > MOST:
        return [Finding("high", f"{len(reported)} modules are reported, too many to be held against the manifest")]
    found = _findings(expected, reported, limit_ms)
    listed = list(islice(found, LISTED))
    rest = Counter(finding.severity for finding in found)
    if rest:
        worst = min(rest, key=SEVERITIES.index)
        listed.append(Finding(worst, f"{rest.total()} more things are wrong with the modules"))
    return listed


def _findings(expected: Mapping[str, str], reported: Sequence[ModuleReport], limit_ms: int | None) -> Iterator[Finding]:
    times_named = Counter(module.name for module in reported)
    for name in sorted(expected.keys() - times_named.keys()):
        yield Finding("high", f"module {name} was pushed, but is not loaded")
    for name, times in times_named.items():
        if times > 1:
            yield Finding("high", f"module {_shown(name)} is reported {times} times")
    for module in reported:
        shown = _shown(module.name)
        if module.name not in expected:
            yield Finding("high", f"module {shown} is loaded, but was not pushed")
        elif module.status != LOADED or module.error:
            error = one_line(module.error[:_WORDS]) if module.error else "it gives no error"
            yield Finding("high", f"module {shown} is {one_line(module.status[:_WORDS], 40) or 'not loaded'}: {error}")
        elif module.digest is None:
            yield Finding("high", f"module {shown} reports no digest, so it may be an old one")
        elif module.digest != expected[module.name]:
            digests = f"{one_line(module.digest[:_WORDS], 12)} instead of {expected[module.name][:12]}"
            yield Finding("high", f"module {shown} was loaded from other bytes than were pushed: digest {digests}")
        elif limit_ms is not None:
            yield from _of_time(shown, module.load_ms, limit_ms)


def _shown(name: str) -> str:
    return one_line(name[:_WORDS], 64)


def _of_time(shown: str, load_ms: int | None, limit_ms: int) -> Iterator[Finding]:
    if not _credible(load_ms):
        yield Finding("medium", f"module {shown} reports no load time, so it cannot be held against {limit_ms} ms")
    elif load_ms > limit_ms:
        yield Finding("high", f"module {shown} took {load_ms} ms to load, over the {limit_ms} ms of raos.toml")


def _credible(load_ms: int | None) -> TypeGuard[int]:
    return load_ms is not None and 0 <= load_ms < _LONGEST_MS
