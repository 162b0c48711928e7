"""Evidence as one page that a person can mail and keep: it loads nothing, runs nothing, and escapes what it shows."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from statistics import median_low
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ashat.common.text import printable, printable_json
from ashat.deployment.approval_rules import TAIL
from ashat.verification.evidence import Evidence, EvidencedCheck, EvidencedRehearsal, figure_in_words
from ashat.verification.findings import Found, by_section, headline, worst_first
from ashat.verification.policy import Policy
from tasks.verify.latency_plot import latency_svg

NEW_US, OLD_US = "new_us", "old_us"
_BY_PATH = ("p50_us", "p95_us", "p99_us", "bytes")
_SHORT = 16


def evidence_page(evidence: Evidence, warnings: Sequence[str] = ()) -> str:
    """The page: HTML with its style, its plots and the canonical JSON inside, and no address of anything outside.

    `warnings` are sentences about who approves, which are no part of the evidence.
    """
    return _environment().get_template("evidence.html").render(_shown(evidence), warnings=warnings)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("tasks.verify", "templates"), autoescape=True, undefined=StrictUndefined, finalize=_plain
    )


def _plain(value: object) -> object:
    """`value` without the characters that are not to be seen, such as those that turn the direction of text."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _shown(evidence: Evidence) -> dict[str, Any]:
    canonical = evidence.canonical
    attempt = f" (attempt {evidence.attempt})" if evidence.attempt > 1 else ""
    return {
        "name": evidence.update_id + attempt,
        "outcome": evidence.outcome,
        "summary": _summary(evidence),
        "digest": evidence.digest,
        "tail": TAIL,
        "checks": [_check(check) for check in worst_first(evidence.checks)],
        "plots": list(_plots(evidence)),
        "rehearsal": _rehearsal(evidence.rehearsal) if evidence.rehearsal else None,
        "about": list(_about(evidence)),
        "policy": list(_rules(evidence.policy)),
        "policy_digest": evidence.policy_digest,
        "self_test": list(_proofs(evidence)),
        "file": f"{evidence.update_id}-{evidence.attempt}.evidence.json",
        "base64": base64.b64encode(canonical).decode(),
        "size": f"{len(canonical):,} bytes",
        "json": _readable(canonical.decode()),
        "format": evidence.format,
        "tool": evidence.tool,
        "public": evidence.public.name,
    }


def _summary(evidence: Evidence) -> str:
    version = f"version {evidence.version}" if evidence.version else f"the bundle {evidence.bundle[:_SHORT]}…"
    seconds = round((_time(evidence.ended) - _time(evidence.began)).total_seconds())
    place = f"Of {version} on {evidence.public.name}, in {seconds} s, until {_when(evidence.ended)}"
    return f"{headline(evidence.checks)}. {place}."


def _check(check: EvidencedCheck) -> dict[str, Any]:
    figures = [figure_in_words(name, value) for name, value in check.figures.items()]
    figures += [
        _spread(name, values)
        for name, values in check.series.items()
        if values and name.endswith(("_us", "_ms")) and "_by_path_" not in name
    ]
    taken = f", taken {_when(check.at)}" if check.at else ""
    return {
        "anchor": f"check-{check.name}",
        "title": check.title,
        "outcome": check.outcome,
        "seen": check.seen,
        "took": f"{check.milliseconds / 1000:.1f} s",
        "reused": f"taken over from the evidence {check.reused_from[:_SHORT]}…" if check.reused_from else "",
        "sections": [
            {"name": section, "counts": counts, "findings": [_finding(found) for found in findings]}
            for section, counts, findings in by_section(check.findings)
        ],
        "figures": figures,
        "inputs": _readable(json.dumps(check.inputs, ensure_ascii=False, indent=2)) if check.inputs else "",
        "told": f"Check {check.name}, version {check.version}{taken}.",
    }


def _finding(found: Found) -> dict[str, str]:
    about = " ".join(filter(None, (found.rule, found.path)))
    return {"severity": found.severity, "text": found.text, "about": about}


def _spread(name: str, values: Sequence[int]) -> tuple[str, str]:
    """A series in a line: how many were measured, their median, and from where to where they go."""
    words, middle = figure_in_words(name, median_low(values))
    lowest, highest = (figure_in_words(name, value)[1] for value in (min(values), max(values)))
    return f"{words}, median of {len(values)}", f"{middle} ({lowest} to {highest})"


def _plots(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """The distributions of every check that measured how long answers take."""
    for check in evidence.checks:
        new, old = check.series.get(NEW_US, []), check.series.get(OLD_US, [])
        if not new:
            continue
        yield {
            "title": f"How long answers took: {check.title}",
            "svg": Markup(latency_svg(new, old)),  # noqa: S704 - our own drawing, of nothing but numbers
            "caption": f"This release: {_latency(new)}. The release before: {_latency(old)}.",
            "paths": list(_paths(check)),
        }


def _paths(check: EvidencedCheck) -> Iterator[tuple[str, list[str]]]:
    """Each path that was measured with its figures, those of the release before in brackets."""
    paths = check.inputs.get("paths")
    for number, path in enumerate(paths if isinstance(paths, list) else []):
        cells = []
        for name in _BY_PATH:
            new, old = (
                series[number] if number < len(series := check.series.get(f"{which}_by_path_{name}", [])) else None
                for which in ("new", "old")
            )
            if new is None:
                return
            before = "" if old is None else f" ({figure_in_words(f'answer_{name}', old)[1]})"
            cells.append(figure_in_words(f"answer_{name}", new)[1] + before)
        yield str(path), cells


def _latency(times: Sequence[int]) -> str:
    if not times:
        return "not measured"
    return f"{len(times)} answers, half of them within {figure_in_words(NEW_US, median_low(times))[1]}"


def _rehearsal(made: EvidencedRehearsal) -> dict[str, Any]:
    ways = (("back", made.back_ms), ("forward again", made.forward_ms))
    return {
        "outcome": made.outcome,
        "detail": made.detail,
        "figures": [
            (f"{way}, time {number}", f"{ms / 1000:.2f} s") for way, times in ways for number, ms in enumerate(times, 1)
        ],
        "trees": [
            {
                "release": f"the {tree.release} release",
                "files": tree.files,
                "expected": f"{tree.expected[:_SHORT]}…",
                "found": f"{tree.found[:_SHORT]}…",
                "mark": "pass" if tree.expected == tree.found else "fail",
            }
            for tree in made.trees
        ],
    }


def _about(evidence: Evidence) -> Iterator[tuple[str, str]]:
    yield "Bundle", evidence.bundle
    if evidence.version:
        yield "Version", evidence.version
    source = evidence.source
    if source:
        yield "Source", source.name + (f", branch {source.branch}" if source.branch else "")
        if source.artifact:
            yield "Artifact", f"{source.artifact}, {source.artifact.size} bytes"
        if source.commit:
            yield "Commit", source.commit + (", with changes that were not committed" if source.dirty else "")
        if source.who:
            yield "Pushed by", source.who
    if evidence.tasks:
        yield "Tasks", ", ".join(evidence.tasks)
    if evidence.sbom:
        yield "SBOM", f"{evidence.sbom}, which deploy sbom {evidence.update_id} shows"
    yield "Verified on", f"{evidence.public.name}, {evidence.public.url}"
    yield "Which ran before", evidence.public.ran_before or "nothing"
    if evidence.target:
        ran = evidence.target.bundle or "nothing"
        yield (
            f"Meanwhile {evidence.target.name} ran",
            f"unknown: {evidence.target.unknown}" if evidence.target.unknown else ran,
        )
    yield "Began", _when(evidence.began)
    yield "Ended", _when(evidence.ended)


def _rules(policy: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    usual = Policy().model_dump(mode="json")
    for name, value in policy.items():
        known = Policy.model_fields.get(name)
        yield {
            "title": (known.title if known else None) or name.replace("_", " "),
            "value": _value(value),
            "means": (known.description if known else None) or "",
            "departs": name not in usual or value != usual[name],
            "usual": _value(usual[name]) if name in usual else "unknown to this version",
        }


def _proofs(evidence: Evidence) -> Iterator[dict[str, Any]]:
    for name, proof in (evidence.self_test or {}).items():
        mark = "pass" if proof.caught == proof.seeded else "fail"
        yield {"name": name, "version": proof.version, "caught": proof.caught, "seeded": proof.seeded, "mark": mark}


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {item}" for key, item in value.items()) or "none"
    return str(value) or "none"


def _readable(text: str) -> Markup:
    """JSON to be read: what is not to be seen stands in it as JSON would escape it, so that it says the same."""
    return escape(printable_json(text))


def _time(moment: str) -> datetime:
    return datetime.fromisoformat(moment).astimezone(UTC)


def _when(moment: str) -> str:
    return f"{_time(moment):%Y-%m-%d %H:%M:%S} UTC"
