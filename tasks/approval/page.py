"""Write the page on which people are asked, as Markdown: the question, what changes, who signs, and the evidence.

Text that comes from a release is escaped in it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ashat.bundle.manifest import BundleDiff
from ashat.deployment.approval_rules import TAIL
from ashat.deployment.state import State
from ashat.errors import IntegrityError, ManifestError, NodeError
from ashat.protocol.messages import NodeState
from ashat.settings import Settings
from ashat.trust.authority.authority import one_person_words
from ashat.trust.release.proposal import Proposal
from ashat.trust.release.provenance import verify_provenance
from blocks.policy import load_policy
from tasks.approval.signing import wants_four_eyes
from tasks.approval.subject import Subject
from tasks.runtime.artifacts import escape, markdown_table
from tasks.runtime.deployment import Deployment
from tasks.runtime.run import now

_FILES_SHOWN = 40
_NO_ROLLBACK = "- No rollback is signed with it: what runs now has no evidence, or no provenance that counts"
_ROLLBACK_ASKED = "- No rollback is signed with it, as the policy has it: a rollback waits for people to sign"


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
) -> str:
    """Write the page about `subject`, over a target that is as `seen`, or that cannot be asked because of `missing`;
    and who is to sign `proposal` until it expires."""
    request, page = state.undecided(subject.name), subject.page(d, state, seen)
    evidence = subject.update(state).evidence or ""
    lines = [f"# {page.title}", ""]
    if request is not None and request.reason and request.waits(now()):
        lines += [f"> ⚠️ **Asked again:** {escape(request.reason)}", ""]
    if missing:
        lines += [f"> ❌ **It cannot be approved yet:** {escape(missing)}", ""]
    lines += [*page.facts, f"- Open until {expires:%Y-%m-%d %H:%M} UTC", ""]
    if page.changes:
        lines += ["## What changes", "", *page.changes, ""]
    if page.checks:
        lines += [*page.checks, ""]
    if proposal is not None:
        lines += _signatures(subject, state, proposal, running(seen))
    elif not missing:
        lines += _one_person(state)
    lines += ["## Evidence", "", f"`{evidence[:32]}` `{evidence[32:]}`", ""]
    return "\n".join([*lines, f"To decide, type its last {TAIL} characters: **`{evidence[-TAIL:]}`**."])


def _signatures(subject: Subject, state: State, proposal: Proposal, target_bundle: str | None) -> list[str]:
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
    if subject.name == "release" and back is None and target_bundle is not None:
        lines.append(_NO_ROLLBACK if load_policy(state.policy).presign_rollback else _ROLLBACK_ASKED)
    return [*lines, ""]


def _machines(proposal: Proposal) -> list[str]:
    release = proposal.release
    proven = verify_provenance(proposal.targets.signed, release.document, release.provenance)
    if proven is None:
        return []
    checked = f", verified on {escape(proven.verifier)}" if proven.verifier else ""
    return [f"- Built on {escape(proven.builder)}{checked}, as their keys prove"]


def _one_person(state: State) -> list[str]:
    """Tell that nobody signs but the one key here, and what that does not protect; nothing where people sign."""
    words = one_person_words(Settings().ensure_home(), state.target)
    return ["## Signatures", "", *(f"- {line}" for line in words), ""] if words else []


def reach(d: Deployment) -> str:
    """Count the Mainframes that the target serves, in words."""
    count = sum(1 for mainframe in d.target.mainframes() if mainframe.status == "active")
    return f"{count} Licensed Mainframe" + ("" if count == 1 else "s")


def if_shown(lines: Callable[[], list[str]], public: str, target: str) -> list[str]:
    """Return the lines about what changes; where a server does not hold what is compared, why they cannot be shown.

    Raises:
        NodeError: a server does not answer now.
    """
    try:
        return lines()
    except (NodeError, IntegrityError, ManifestError) as error:
        if isinstance(error, NodeError) and error.transient:
            raise
        return [
            f"> ⚠️ **What changes cannot be shown:** {escape(str(error))}",
            ">",
            "> Whoever approves does so without having seen it. `deploy servers` says which server lost it, "
            f"`deploy heal {target}` or `deploy heal {public}` brings it back; then `deploy verify` asks anew.",
        ]


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
