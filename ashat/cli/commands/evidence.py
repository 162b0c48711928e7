"""`deploy evidence`: what a verification saw, for a person, for a script, or as a page that can be mailed.

Only the page needs more than the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ashat.cli.terminal import output
from ashat.cli.terminal.output import CHECK_MARKS
from ashat.errors import ControlPlaneError, LedgerError, SessionError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.deployment.state import State
    from ashat.verification.evidence import Evidence, EvidencedCheck, EvidencedRehearsal

OUTCOME_MARKS = {"passed": "✅", "attention": "⚠️", "failed": "❌"}
_FIGURES_A_LINE = 4


def evidence(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update that was verified.")],
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt.", show_default="the last")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the document itself, byte for byte: its sha256 is the digest.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one page that can be mailed and read anywhere.")
    ] = None,
) -> None:
    """Show what the last verification saw: each check, its findings and figures, under which policy."""
    with open_ledger() as ledger:
        state = ledger.load(update_id, attempt)
        document = _document(ledger.document, state)
    if html is not None:
        _write_page(document, html, _who_approves(state))
        if not as_json:
            output.say(f"📄 {html}: the evidence {state.evidence}")
            return
    if as_json:
        from ashat.common.canonical_json import canonical_json

        output.write_exactly(canonical_json(document).decode())
        return
    for line in _lines(_read(document)):
        output.say(line)
    for line in _who_approves(state):
        output.say(line)


def page_of(state: State) -> str:
    """Write the page of an update's evidence.

    Raises:
        SessionError: there is no evidence.
        LedgerError: the ledger has lost it.
        ControlPlaneError: what writes the page is not installed.
    """
    with open_ledger() as ledger:
        document = _document(ledger.document, state)
    return _page(document, _who_approves(state))


def _document(find: Callable[[str], dict[str, Any]], state: State) -> dict[str, Any]:
    if state.evidence is None:
        how = "nothing was verified" if state.ended else f"deploy verify {state.update_id}"
        raise SessionError(f"Deployment '{state.update_id}' has no evidence{'' if state.ended else ' yet'}: {how}.")
    try:
        return find(state.evidence)
    except LedgerError as error:
        raise LedgerError(
            f"{error} It was the evidence of '{state.update_id}': restore the ledger from a backup."
        ) from None


def _read(document: dict[str, Any]) -> Evidence:
    from ashat.verification.evidence import Evidence

    return Evidence.read(document)


def _who_approves(state: State) -> tuple[str, ...]:
    from ashat.settings import Settings
    from ashat.trust.authority.authority import one_person_line

    line = one_person_line(Settings().home, state.target)
    return (line,) if line else ()


def _page(document: dict[str, Any], warnings: Sequence[str]) -> str:
    try:
        from tasks.verify.evidence_page import evidence_page

        return evidence_page(_read(document), warnings)
    except ModuleNotFoundError as error:
        raise ControlPlaneError(
            f"The page needs {error.name}, which is not installed: pip install 'ashat-deploy[operator]'."
        ) from None


def _write_page(document: dict[str, Any], path: Path, warnings: Sequence[str]) -> None:
    from ashat.cli.commands.html_pages import write_page

    write_page(path, lambda: _page(document, warnings))


def _lines(found: Evidence) -> Iterator[str]:
    from ashat.verification.findings import headline, worst_first

    attempt = f" (attempt {found.attempt})" if found.attempt > 1 else ""
    yield f"🔎 Evidence of {found.update_id}{attempt}: {headline(found.checks)}"
    yield from output.columns(list(_facts(found)))
    for check in worst_first(found.checks):
        yield ""
        yield from _check(check)


def _facts(found: Evidence) -> Iterator[tuple[str, str]]:
    from ashat.deployment.approval_rules import TAIL

    yield "Outcome", f"{OUTCOME_MARKS[found.outcome]} {found.outcome}"
    yield "Evidence", found.digest
    if found.outcome == "failed":
        yield "To approve", "nobody can: the verification failed; mend it and push again"
    else:
        yield "To approve", f"type {found.digest[-TAIL:]}, its last {TAIL} characters"
    yield "Bundle", found.bundle + (f" (version {found.version})" if found.version else "")
    if found.source:
        yield "Source", _source(found)
    began, ended = (datetime.fromisoformat(moment).astimezone(UTC) for moment in (found.began, found.ended))
    yield "Verified", f"{ended:%Y-%m-%d %H:%M:%S} UTC, in {output.span(ended - began)}, by version {found.tool}"
    yield "Public", f"{found.public.name} at {found.public.url}; before, it ran {found.public.ran_before or 'nothing'}"
    bundle = f"unknown: {found.target.unknown}" if found.target.unknown else found.target.bundle or "nothing"
    yield "Target", f"{found.target.name} ran {bundle}"
    if found.tasks:
        yield "Tasks", ", ".join(found.tasks)
    if found.sbom:
        yield "SBOM", f"{found.sbom} (deploy sbom {found.update_id})"
    yield "Policy", f"{found.policy_digest}: {', '.join(_departures(found.policy)) or 'the default'}"
    if found.rehearsal:
        yield "Rehearsal", _rehearsal(found.rehearsal)
    for name, proof in (found.self_test or {}).items():
        mark = "✅" if proof.caught == proof.seeded else "❌"
        yield "Self-test", f"{mark} {name}: {proof.caught} of {proof.seeded} seeded faults caught"


def _source(found: Evidence) -> str:
    source = found.source
    assert source is not None
    commit = f", commit {source.commit[:12]}" if source.commit else ""
    commit = f", {source.artifact}" if source.artifact else commit
    by = f", by {source.who}" if source.who else ""
    branch = f" on {source.branch}" if source.branch else ""
    return f"{source.name}{commit}{branch}{', with uncommitted changes' if source.dirty else ''}{by}"


def _departures(policy: dict[str, Any]) -> Iterator[str]:
    """List the keys of a policy that are not as built in."""
    from ashat.verification.policy import Policy

    usual = Policy().model_dump(mode="json")
    for name, value in policy.items():
        if name not in usual or value != usual[name]:
            yield f"{name} = {json.dumps(value, ensure_ascii=False)}"


def _rehearsal(made: EvidencedRehearsal) -> str:
    files = sum(tree.files for tree in made.trees)
    back, forward = (
        " and ".join(f"{ms} ms" for ms in times) or "not done" for times in (made.back_ms, made.forward_ms)
    )
    odd = [tree.release for tree in made.trees if tree.expected != tree.found]
    text = f"{CHECK_MARKS[made.outcome]} back in {back}, forward in {forward}; {files} files compared"
    return text + (f"; the {odd[0]} release's tree differs" if odd else "")


def _check(check: EvidencedCheck) -> Iterator[str]:
    yield f"  {CHECK_MARKS[check.outcome]} {check.title}: {check.seen}"
    from ashat.verification.evidence import figure_in_words
    from ashat.verification.findings import by_section

    for section, counts, findings in by_section(check.findings):
        yield f"       {section}: {counts}"
        for finding in findings:
            about = ", ".join(part for part in (finding.rule, finding.path) if part)
            yield f"         {finding.severity}: {finding.text}" + (f" ({about})" if about else "")

    figures = [" ".join(figure_in_words(name, value)) for name, value in check.figures.items()]
    for first in range(0, len(figures), _FIGURES_A_LINE):
        yield f"       {', '.join(figures[first : first + _FIGURES_A_LINE])}"
    taken = f", taken {check.taken.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    reused = f", from the evidence {check.reused_from[:12]}…" if check.reused_from else ""
    yield f"       {check.name} {check.version}, {check.milliseconds} ms{taken}{reused}"
