"""Write the page on which people are asked, as Markdown: the question, what changes, who signs, and the evidence.

Text that comes from a release is escaped in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from ashat.bundle.manifest import BundleDiff, Manifest, diff
from ashat.client.node import NodeClient
from ashat.common.text import unescape_markdown
from ashat.deployment.approval_rules import TAIL
from ashat.deployment.state import State
from ashat.errors import IntegrityError, ManifestError, NodeError
from ashat.protocol.messages import NodeState
from ashat.settings import Settings
from ashat.trust.authority.authority import one_person_line
from ashat.trust.release.proposal import Proposal
from ashat.trust.release.provenance import verify_provenance
from tasks.approval.signing import wants_four_eyes
from tasks.approval.subject import Page, Subject
from tasks.approval.text_diff import text_changes
from tasks.runtime.artifacts import artifact_key, artifact_url, escape, markdown_table
from tasks.runtime.deployment import Deployment
from tasks.runtime.run import now

_LINK = re.compile(r"\[([^\]\\]+)\]\((https?://[^)\s]+)\)")
# Within a line these are no marks of Markdown by themselves.
_HARMLESS = re.compile(r"(?<=\w)\\([-.+#()])")
_FILES_SHOWN = 40
_FORM_CHARACTERS = 4_000
_PAGE_CHARACTERS = 200_000
_MODULES_NAMED = 4
_UNTIL_THEN = "Once that is over, people are asked anew within a minute. Until then it can only be rejected."


class Composed(NamedTuple):
    """Hold the page on which people are asked: as the form shows it, and as a page of its own does."""

    form: str
    page: str


def running(seen: NodeState | None) -> str | None:
    """Name the bundle that a server runs; None if it runs nothing or was not seen."""
    return seen.current.bundle if seen and seen.current else None


def compose(
    d: Deployment,
    subject: Subject,
    state: State,
    seen: NodeState | None,
    missing: str,
    expires: datetime,
    proposal: Proposal | None,
) -> Composed:
    """Write the page about `subject`, over a target that is as `seen`, or that cannot be asked because of `missing`;
    and who is to sign `proposal` until it expires. The form shows fewer of the differences than the page."""
    page, link = subject.page(d, state, seen), artifact_url(page_key(d, subject))
    head = _head(subject, state, page, missing, expires, link)
    tail = _tail(subject, state, page, seen, missing, proposal)
    more = f" [The whole page]({link}) has more." if link else " The artifact of this run has more."
    return Composed(
        # The form's text is seen through a window of a few lines: no large heading there.
        form="\n".join([f"### {page.title}", *head, *_changes(page, _FORM_CHARACTERS, more), *tail]),
        page="\n".join([f"# {page.title}", *head, *_changes(page, _PAGE_CHARACTERS, ""), *tail]),
    )


def headline(form: str) -> str:
    """Write what stands above the differences in a form as plain text, for a message: the verdict, how much changes,
    how far it reaches, what to type, and who pushed it."""
    head = form.partition("\n## ")[0].replace("**", "").replace("`", "")
    lines = (_LINK.sub(r"\1: \2", line.lstrip("#> ")) for line in head.splitlines())
    return "\n".join(unescape_markdown(line) for line in lines if line.strip())


def verdict_lines(form: str) -> str:
    """Return of a form's text, as paragraphs, why people are asked again, if they are, and the three lines below the
    question: the verdict, how much changes, and what to type.

    Prefect's first UI shows them as Markdown and its second as they are, so they hold no marks but the escapes without
    which somebody's words would be marks.
    """
    lines = form.splitlines()[1:]
    last = next((at for at, line in enumerate(lines) if line.startswith("3. ")), -1)
    plain = (_LINK.sub(r"\1: \2", line.replace("**", "").replace("`", "")) for line in lines[: last + 1] if line)
    return _HARMLESS.sub(r"\1", "\n\n".join(plain))


def page_key(d: Deployment, subject: Subject) -> str:
    """Name the artifact that shows the whole page."""
    return artifact_key(f"{subject.prefix}-{d.update_id}-{d.attempt}")


def _head(subject: Subject, state: State, page: Page, missing: str, expires: datetime, link: str) -> list[str]:
    """Write below the question in three lines the verdict, the size of the change, and what to type; then the facts."""
    request, evidence = state.undecided(subject.name), subject.update(state).evidence or ""
    lines = [""]
    if request is not None and request.reason and request.waits(now()):
        lines += [f"> ⚠️ **Asked again:** {escape(request.reason)}", ""]
    barred = f"❌ **It cannot be approved yet:** {escape(missing.rstrip('.'))}. {_UNTIL_THEN}"
    to = "To reject it" if missing else "To decide"
    whole = f" [Read the whole page]({link}) first." if link else ""
    lines += [
        f"1. {barred if missing else page.verdict}",
        f"2. {page.size}",
        f"3. {to}, type **`{evidence[-TAIL:]}`**. Open until {expires:%Y-%m-%d %H:%M} UTC.{whole}",
        "",
    ]
    return [*lines, *page.facts, ""]


def _changes(page: Page, room: int, more: str) -> list[str]:
    """Write what changes, with as many of the differing texts as `room` has characters for."""
    if not page.changes:
        return []
    shown: list[str] = []
    for text in page.texts:
        if len(text) > room:
            break
        room -= len(text)
        shown += [text, ""]
    left = len(page.texts) - len(shown) // 2
    if left:
        shown += [f"… and {left} difference{'' if left == 1 else 's'} that had no room here.{more}", ""]
    return ["## What changes", "", *page.changes, "", *shown]


def _tail(
    subject: Subject, state: State, page: Page, seen: NodeState | None, missing: str, proposal: Proposal | None
) -> list[str]:
    lines, evidence = [], subject.update(state).evidence or ""
    if page.blast_radius:
        lines += [*page.blast_radius, ""]
    if page.checks:
        lines += [*page.checks, ""]
    if proposal is not None:
        lines += _signatures(subject, state, proposal)
    elif not missing:
        lines += _one_person(state)
    lines += ["## Evidence", "", f"`{evidence[:32]}` `{evidence[32:]}`", ""]
    to = "To reject it" if missing else "To decide"
    return [*lines, f"{to}, type its last {TAIL} characters: **`{evidence[-TAIL:]}`**."]


def _signatures(subject: Subject, state: State, proposal: Proposal) -> list[str]:
    """Tell who has signed `proposal`, who is missing, and how they sign."""
    request, update = state.undecided(subject.name), subject.update(state)
    name, back = escape(state.update_id), proposal.rollback
    also = f", and the rollback to {escape(back.document.update_id)}" if back else ""
    lines = [
        "## Signatures",
        "",
        f"- Signed by {escape(str(proposal.count(request.signatures if request else ())))}",
        *_machines(proposal),
        f"- Each signs this release{also}, on their own machine: `deploy approve {name} --key FILE.pem`, or what "
        f"`deploy sign {name} --key FILE.pem` prints goes into the field Signature",
    ]
    if wants_four_eyes(update):
        lines.append(f"- Four eyes: {escape(update.pushed_by)} pushed it, and does not count")
    return [*lines, ""]


def _machines(proposal: Proposal) -> list[str]:
    release = proposal.release
    proven = verify_provenance(proposal.targets.signed, release.document, release.provenance)
    if proven is None:
        return []
    checked = f", verified on {escape(proven.verifier)}" if proven.verifier else ""
    return [f"- Built on {escape(proven.builder)}{checked}, as their keys prove"]


def _one_person(state: State) -> list[str]:
    """Tell that nobody signs but the one key here; nothing where people sign."""
    line = one_person_line(Settings().ensure_home(), state.target)
    return ["## Signatures", "", f"- {line}", ""] if line else []


def mainframes_served(d: Deployment) -> dict[str, dict[str, str]]:
    """List the Mainframes that the target serves: their labels, by their id."""
    return {one.id: one.labels for one in d.target.mainframes() if one.status == "active"}


def in_words(count: int) -> str:
    """Say so many Mainframes in words."""
    return f"{count} Licensed Mainframe" + ("" if count == 1 else "s")


def _size(found: BundleDiff, target: str, runs: str) -> str:
    """Say in a line how much changes, in which modules, against what the target runs."""
    kinds = {"added": found.added, "changed": (*found.changed, *found.mode_changed), "removed": found.removed}
    counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in kinds.items() if paths)
    modules = [escape(name) or "files outside modules" for name in found.by_module()]
    named = ", ".join(modules[:_MODULES_NAMED]) + (" and others" if len(modules) > _MODULES_NAMED else "")
    what = f"**Files: {counts}** in {named}" if counts else "**No file changes**"
    return f"{what}; {target} runs {runs}."


class Compared(NamedTuple):
    """Hold how two bundles differ: how much in a line, then each change, then how the texts differ."""

    size: str
    changes: list[str]
    texts: list[str]


def compare(
    old: tuple[NodeClient, Manifest] | None,
    new: tuple[NodeClient, Manifest],
    target: str,
    runs: str,
    notes: list[str] | None = None,
) -> Compared:
    """Compare the bundle `old` that `target` runs with `new`, each on the node that holds it; `runs` names the old one,
    `notes` come before the changes.

    Raises:
        NodeError: a node does not answer.
        IntegrityError: a node sent other bytes.
    """
    found = diff(old[1] if old else None, new[1])
    size = _size(found, escape(target), escape(runs) if old else "nothing")
    return Compared(size, [*(notes or []), difference(found)], text_changes(found, old, new) if old else [])


def if_shown(comparing: Callable[[], Compared], public: str, target: str) -> Compared:
    """Return what is compared; where a server does not hold that, why it cannot be shown.

    Raises:
        NodeError: a server does not answer now.
    """
    try:
        return comparing()
    except (NodeError, IntegrityError, ManifestError) as error:
        if isinstance(error, NodeError) and error.transient:
            raise
        lines = [
            f"> ⚠️ **What changes cannot be shown:** {escape(str(error))}",
            ">",
            "> Whoever approves does so without having seen it. `deploy servers` says which server lost it, "
            f"`deploy heal {target}` or `deploy heal {public}` brings it back; then `deploy verify` asks anew.",
        ]
        return Compared("⚠️ **How much changes cannot be shown**: the reason is below.", lines, [])


def difference(found: BundleDiff) -> str:
    """List what changes, by module and by file, as Markdown."""
    if found.empty:
        return "Nothing: the target runs these bytes already."
    modules = [
        (escape(name) or "(outside modules)", str(n["added"]), str(n["removed"]), str(n["changed"]))
        for name, n in found.by_module().items()
    ]
    files = [
        *(("removed", path) for path in found.removed),
        *(("changed", path) for path in found.changed),
        *(("mode changed", path) for path in found.mode_changed),
        *(("added", path) for path in found.added),
    ]
    page = markdown_table(("module", "added", "removed", "changed"), modules) + "\n\n"
    page += "\n".join(f"- **{kind}** {escape(path)}" for kind, path in files[:_FILES_SHOWN])
    if len(files) > _FILES_SHOWN:
        page += f"\n\n… and {len(files) - _FILES_SHOWN} files more."
    return page
