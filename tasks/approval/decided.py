"""Tell what people decided, and who they were, in a line. Pure, no I/O."""

from __future__ import annotations

from ashat.deployment.events import Subject
from ashat.deployment.state import State

_DECIDED = {"approve": "approved", "reject": "rejected"}


def decision_line(state: State, subject: Subject, comment: str = "") -> str:
    """Say who approved or rejected `subject`, and how they are known; "" where nobody has decided."""
    request = state.approvals.get(subject)
    if request is None or not request.decision:
        return ""
    of = f"{state.update_id} was" if subject == "release" else f"The {subject} of {state.update_id} was"
    signed = request.decision == "approve" and {one.name for one in request.signatures} >= set(request.deciders)
    who = f"signed by {', '.join(request.deciders)}" if signed and request.deciders else _typed(request.decided_by)
    return f"{of} {_DECIDED[request.decision]}, {who}" + (f": {comment}" if comment.strip() else "")


def _typed(name: str) -> str:
    return f"by {name} (a name as it was typed)" if name.strip() else "by somebody who gave no name"
