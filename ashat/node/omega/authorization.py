"""Authorizes a change of what OMEGA runs: by a decision for exactly that, used once, or as the way back from it.

The `judge_` functions are rules only. `AuthorizationRule` is what the node's operations ask, inside the transaction
that records the operation: the decision, and what was signed, are kept as part of the operation's request, so they
are never apart.

A decision is spent when a promotion under it succeeds. One whose promotion failed and was put back (the program was
unhealthy, the disk was full, the node was killed) may be presented again under a new operation id, for as long as
nothing else was accepted since: the person's yes still stands over exactly the same change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from ashat.node.core.errors import ApiError
from ashat.node.omega.ledger_log import KeptLog
from ashat.node.omega.trust import OmegaTrust
from ashat.node.operations.records import RunningRelease
from ashat.protocol.messages import Current, Decision, OperationRequest
from ashat.trust.tuf.release_document import ReleaseDocument

# An index, so that judging a promotion costs the same after years of them.
SCHEMA = """
CREATE INDEX IF NOT EXISTS operations_by_decision ON operations (json_extract(request, '$.decision.id'))
"""
_UNDER = "SELECT request, status, release_seq FROM operations WHERE json_extract(request, '$.decision.id') = ?"


@dataclass(frozen=True, slots=True)
class Use:
    """An operation that was accepted under a decision."""

    decision: Decision
    failed: bool
    release_seq: int


class AuthorizationRule:
    """What OMEGA's operations ask: is there a decision for this change, and did the approvers sign it?"""

    def __init__(self, trust: OmegaTrust, log: KeptLog) -> None:
        self._trust = trust
        self._log = log

    def __call__(
        self, connection: sqlite3.Connection, request: OperationRequest, standing: RunningRelease
    ) -> int | None:
        """The `release_seq` of a promotion or rollback on OMEGA; None for another action.

        Raises:
            ApiError: 409, as `judge_promotion`, `judge_rollback`, `OmegaTrust.judge`, `judge_signed` and
                `KeptLog.check`.
        """
        if request.action == "promote":
            given = judge_promotion(request, standing, _uses(connection, request.decision))
        elif request.action == "rollback":
            given = judge_rollback(request, standing)
        else:
            return None
        signed = self._trust.judge(request)
        if signed is None:
            return given
        given = judge_signed(request, signed, standing)
        self._log.check(connection, signed)
        return given


def judge_signed(request: OperationRequest, signed: ReleaseDocument, standing: RunningRelease) -> int:
    """Give a change its `release_seq`: that of the document which the approvers signed for this very change.

    Raises:
        ApiError: 409 `untrusted` where the decision is about something else than what was signed; where a rollback is
            asked for with what is no way back; or where its `release_seq` is not above the highest accepted.
    """
    decision = request.decision if request.action == "promote" else None
    if decision is not None:
        if (signed.release_seq, signed.evidence) != (decision.release_seq, decision.evidence):
            raise _untrusted(
                f"The decision {decision.id!r} is about another release_seq or evidence than what was signed. "
                "Approve again."
            )
    elif not _returns(signed, standing.previous):
        # A release of bytes that ran before would else go out without a decision, and be offered by itself.
        raise _untrusted(
            f"What was signed is {signed.update_id}/{signed.attempt} as a release of its own, and not the return to "
            "what ran before. Promote it instead."
        )
    elif signed.release_seq <= standing.release_seq:
        raise _untrusted(
            f"What was signed has release_seq {signed.release_seq}, but {standing.release_seq} was accepted here "
            "before. It must be signed anew, with a higher one."
        )
    return signed.release_seq


def judge_promotion(request: OperationRequest, standing: RunningRelease, uses: Sequence[Use]) -> int:
    """Give a promotion its `release_seq`: its decision's. `uses` are the operations under that decision so far.

    Raises:
        ApiError: `decision_missing` without a decision for exactly this change, or with a `release_seq` that is not
            above the highest accepted; `decision_used` where it was used before.
    """
    decision = request.decision
    if decision is None:
        raise _missing("OMEGA promotes only with a person's decision for this release. Run: deploy approve.")
    differing = _differences(request, decision)
    if differing:
        raise _missing(
            f"The decision {decision.id!r} is for another {' and '.join(differing)} than this promotion. "
            "Run deploy approve for this release."
        )
    if uses:
        return _presented_again(decision, standing, uses)
    if decision.release_seq <= standing.release_seq:
        raise _missing(
            f"The decision {decision.id!r} has release_seq {decision.release_seq}, but {standing.release_seq} was "
            "accepted here before. Approve again, against what OMEGA runs now."
        )
    return decision.release_seq


def judge_rollback(request: OperationRequest, standing: RunningRelease) -> int:
    """Give a rollback its `release_seq`: one above the highest.

    The approval that brought the release which runs covers the way back to what that release replaced, and nothing
    else.

    Raises:
        ApiError: `nothing_before` where the running release replaced nothing; `decision_missing` where it was not
            promoted, or another bundle is asked for.
    """
    current, previous = standing.current, standing.previous
    if current is None or previous is None:
        what = "runs its first release" if current else "runs nothing"
        raise ApiError(409, "nothing_before", f"OMEGA {what}, so there is nothing to roll back to.")
    if standing.brought_by != "promote":
        raise _missing(
            f"OMEGA runs {current.bundle[:12]} because it was rolled back to that; no approval covers a rollback from "
            "there. Promote the release that you want."
        )
    if request.bundle != previous.bundle:
        asked = request.bundle[:12] if request.bundle else "nothing"
        raise _missing(
            f"The approval of what OMEGA runs covers a rollback to {previous.bundle[:12]} only, which it replaced, not "
            f"to {asked}. Promote that one instead."
        )
    return standing.release_seq + 1


def _returns(signed: ReleaseDocument, previous: Current | None) -> bool:
    return previous is not None and (signed.bundle, signed.update_id, signed.attempt) == (
        previous.bundle,
        previous.update_id,
        previous.attempt,
    )


def _presented_again(decision: Decision, standing: RunningRelease, uses: Sequence[Use]) -> int:
    if any(use.decision != decision or not use.failed for use in uses):
        raise _used(f"The decision {decision.id!r} was used before. Approve again for another promotion.")
    if max(use.release_seq for use in uses) != standing.release_seq:
        raise _used(
            f"The promotion under the decision {decision.id!r} failed, and something else was accepted since. "
            "Approve again, against what OMEGA runs now."
        )
    return decision.release_seq


def _differences(request: OperationRequest, decision: Decision) -> list[str]:
    pairs = {
        "update": ((request.update_id, request.attempt), (decision.update_id, decision.attempt)),
        "bundle": (request.bundle, decision.bundle),
        "expected_current": (request.expected_current, decision.expected_current),
    }
    return [name for name, (asked, decided) in pairs.items() if asked != decided]


def _uses(connection: sqlite3.Connection, decision: Decision | None) -> list[Use]:
    if decision is None:
        return []
    uses = []
    for row in connection.execute(_UNDER, (decision.id,)):
        earlier = OperationRequest.model_validate_json(row["request"]).decision
        if earlier is not None:
            uses.append(Use(earlier, failed=row["status"] == "failed", release_seq=row["release_seq"]))
    return uses


def _missing(detail: str) -> ApiError:
    return ApiError(409, "decision_missing", detail)


def _untrusted(detail: str) -> ApiError:
    return ApiError(409, "untrusted", detail)


def _used(detail: str) -> ApiError:
    return ApiError(409, "decision_used", detail)
