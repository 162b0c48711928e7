"""Ask about a rollback for which no signed rollback counts: may the target go back?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ashat.deployment.events import Subject as SubjectName
from ashat.deployment.stages import NO_WAY_BACK
from ashat.deployment.state_machine import State
from ashat.errors import SessionError
from ashat.protocol.messages import NodeState
from tasks.approval.page import Compared, compare, if_shown, in_words, mainframes_served
from tasks.approval.subject import Page, Subject
from tasks.runtime.artifacts import escape
from tasks.runtime.deployment import Deployment
from tasks.runtime.run import now


@dataclass(frozen=True)
class Rollback(Subject):
    """Ask whether the target may go back to `to`; `why` says why no signed rollback counts, `reason` why it should."""

    name: ClassVar[SubjectName] = "rollback"
    prefix: ClassVar[str] = "rollback"
    asked_early: ClassVar[bool] = False

    to: State
    why: str
    reason: str = ""

    def settled(self, d: Deployment, state: State, resumed_keys: frozenset[str]) -> State | None:
        """Return the state once an answer that this run was resumed with has decided it.

        Raises:
            SessionError: nobody answered in time. Nothing was changed.
        """
        request = state.approvals.get(self.name)
        if request is None or self.key(request.ordinal) not in resumed_keys:
            return None
        if not request.decision and not request.waits(now()):
            raise SessionError(f"Nobody answered whether '{state.update_id}' may be rolled back: nothing was changed.")
        return state if request.decision else None

    def update(self, state: State) -> State:
        """Return the update that would run again."""
        return self.to

    def page(self, d: Deployment, state: State, seen: NodeState | None) -> Page:
        """Tell why people are asked, what would run again, and what that changes on the target."""
        to, target = self.to, escape(state.the_target)
        verified = f", verified {to.verified_at:%Y-%m-%d %H:%M} UTC" if to.verified_at else ""
        facts = [f"**{escape(self.reason)}**", ""] if self.reason.strip() else []
        facts += [
            f"- People are asked because {escape(self.why)}",
            f"- Would run again: {escape(to.update_id)}, version {escape(to.bundle_version)}, bundle "
            f"`{(to.bundle or '')[:12]}`{verified}",
            f"- Will reach {target} and {in_words(len(mainframes_served(d)))}",
            f"- Until they have decided {target} keeps running what it runs",
        ]
        title = f"May {target} go back from {escape(state.update_id)} to {escape(to.update_id)}?"
        stays = f" ⚠️ **Of {escape(state.update_id)}, {NO_WAY_BACK}.**" if state.irreversible else ""
        verdict = (
            f"⏪ **Would run again:** {escape(to.update_id)}, version {escape(to.bundle_version)}{verified}.{stays}"
        )
        compared = if_shown(lambda: _changes(d, to, seen), d.public_name, d.target_name)
        return Page(title, verdict, compared.size, facts, compared.changes, compared.texts)


def _changes(d: Deployment, to: State, seen: NodeState | None) -> Compared:
    target, current = d.target, seen.current if seen else None
    old = (target, target.manifest(current.bundle)) if current else None
    runs = current.update_id if current else ""
    return compare(old, (target, target.manifest(to.bundle or "")), to.the_target, runs)
