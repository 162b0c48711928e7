"""Show a person in a terminal what they are asked, and read their answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from ashat.cli.terminal import output
from ashat.common.text import unescape_markdown
from ashat.errors import SessionError, UsageError

if TYPE_CHECKING:
    from ashat.deployment.approval_rules import Answer

_TRIES = 3


@dataclass(frozen=True)
class Decided:
    """Hold what the words of the command decide by themselves; "" where they do not."""

    evidence: str = ""
    reject: bool = False
    reason: str = ""
    comment: str = ""
    by: str = ""
    not_before: str = ""
    override_freeze: str = ""


def show_page(markdown: str) -> None:
    """Show a gate's page: as text, or on a terminal with its headings and lists."""
    if not sys.stdout.isatty():
        for line in markdown.splitlines():
            output.say(unescape_markdown(line))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown("\n".join(output.clean(line) for line in markdown.splitlines())))


def ask_answer(decided: Decided, evidence_shown: str, *, unclean: bool) -> Answer | None:
    """Ask the person who was shown the evidence of that digest for what the command's words leave open; their answer,
    None where they want to leave it waiting. `unclean` asks for a comment.

    Raises:
        UsageError: something is left open, and nobody is there to be asked.
        SessionError: the evidence they typed is not the one that was shown.
    """
    from ashat.deployment.approval_rules import TAIL, Answer, names_evidence
    from tasks.runtime.run import whoami

    expected = evidence_shown[-TAIL:]
    evidence, reject, comment = decided.evidence, decided.reject, decided.comment
    who = decided.by or whoami()
    if not reject and not evidence and output.interactive():
        evidence = _ask_for_tail(evidence_shown)
        if not evidence:
            return None
        reject = evidence == "reject"
    if reject:
        why = decided.reason or comment or _ask("Why is it rejected?", "--reason")
        return Answer("reject", expected, who, why)
    if not evidence:
        raise UsageError(f"Say which evidence you read: --evidence TAIL, its last {TAIL} characters (or --reject).")
    if not names_evidence(evidence, evidence_shown):
        raise SessionError(
            f"The evidence shown does not end in {evidence!r}: nothing was decided. Read it, and type its last {TAIL} "
            "characters."
        )
    if unclean and not comment.strip():
        comment = _ask("A check did not pass cleanly. Why is it approved?", "--comment")
    return Answer(
        "approve", expected, who, comment, not_before=decided.not_before, override_freeze=decided.override_freeze
    )


def _ask_for_tail(evidence: str) -> str:
    from ashat.deployment.approval_rules import names_evidence

    question = "The evidence's last 8 characters approve; 'reject' rejects; nothing leaves it waiting"
    for _ in range(_TRIES):
        typed = str(typer.prompt(question, default="", show_default=False)).strip().lower()
        if typed in ("", "reject") or names_evidence(typed, evidence):
            return typed
        output.note("That is not how the evidence ends.")
    return ""


def _ask(question: str, option: str) -> str:
    if not output.interactive():
        raise UsageError(f"{question} Say so with {option}.")
    return str(typer.prompt(question)).strip()
