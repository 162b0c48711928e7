"""Gather what waits for a person from the record and from the trust roots of a home."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ashat.common.documents import read_json
from ashat.errors import AshatError
from ashat.inbox.waiting import (
    SOON,
    Inbox,
    Waiting,
    in_order,
    of_request,
    of_rollout,
    of_trouble,
    of_window,
    open_requests,
)

_TRUST_LIMIT = 1024 * 1024


def gather(
    home: Path,
    summaries: Iterable[Mapping[str, Any]],
    troubles: Iterable[Mapping[str, str]],
    document: Callable[[str], Mapping[str, Any]],
    at: datetime,
) -> Inbox:
    """Gather what waits at that time: questions of the deployments in `summaries`, the `troubles` that `reconcile`
    noted, and what the trust roots under `home` want signed. `document` reads one of the ledger's by its digest."""
    waiting: list[Waiting] = []
    unseen: list[str] = []
    for summary in summaries:
        waiting += [stopped] if (stopped := of_rollout(summary)) else []
        waiting += [held] if (held := of_window(summary)) else []
        for request in open_requests(summary, at):
            try:
                waiting.append(waiting_for(summary, request, document))
            except AshatError as error:
                unseen.append(f"who signs {summary['update_id']}: {error}")
                waiting.append(of_request(summary, request, {}, 1))
    waiting += [of_trouble(trouble) for trouble in troubles if not _seen_here(home, trouble)]
    unseen += [
        f"what {trouble.get('name') or trouble['server']} runs, since it does not answer"
        for trouble in troubles
        if trouble["kind"] == "unreachable"
    ]
    waiting += _trust(home, at, unseen)
    return Inbox(in_order(waiting), tuple(unseen))


def waiting_for(
    summary: Mapping[str, Any], request: Mapping[str, Any], document: Callable[[str], Mapping[str, Any]]
) -> Waiting:
    """Tell of a question of the deployment in `summary`, and who can answer it.

    Raises:
        AshatError: what is to be signed for it cannot be read.
    """
    return of_request(summary, request, *_signers(request, summary, document))


def _seen_here(home: Path, trouble: Mapping[str, str]) -> bool:
    """Say whether the trust root that is about to end is kept in this home, too, and listed by that."""
    kept = home / "trust" / "authority" / trouble["server"] / "root.json"
    return trouble["kind"] in ("root", "targets") and kept.exists()


def _signers(
    request: Mapping[str, Any], summary: Mapping[str, Any], document: Callable[[str], Mapping[str, Any]]
) -> tuple[dict[str, str], int]:
    """Read who approves what is proposed, and how many it takes; nobody in the one-person mode. Where the policy wants
    four eyes, without the one under whose name it was pushed."""
    if not request["proposal"]:
        return {}, 0
    from ashat.inbox.trust import approvers_of

    signers, threshold = approvers_of(str(document(request["proposal"]).get("targets", "")).encode())
    if dict(document(request["evidence"]).get("policy") or {}).get("four_eyes"):
        own = {summary["pushed_by"].casefold(), summary["pushed_by"].partition("@")[0].casefold()}
        signers = {name: keyid for name, keyid in signers.items() if name.casefold() not in own}
    return signers, threshold


def _trust(home: Path, at: datetime, unseen: list[str]) -> list[Waiting]:
    kept = [root.parent for root in (home / "trust" / "authority").glob("[!.]*/root.json")]
    if not kept:
        unseen.append("changes of trust: no trust root is kept in this home")
    if all(_is_quiet(place, at) for place in kept):
        return []
    from ashat.inbox.trust import waiting_for_trust

    found = list(waiting_for_trust(home, at))
    unseen += [one for one in found if isinstance(one, str)]
    return [one for one in found if isinstance(one, Waiting)]


def _is_quiet(place: Path, at: datetime) -> bool:
    """Say whether a trust root is plainly such that nothing of it waits, without the libraries that verify signatures,
    which take a tenth of a second to import: no change is planned, it is signed often enough, and it ends in more than
    a month. What cannot be read so is not quiet."""
    if (place / "next.json").exists():
        return False
    try:
        root = _read(place / "root.json")
        roles = root["signed"]["roles"]
        for name, document in (("root", root), ("targets", _read(place / "targets.json"))):
            signed = {one["keyid"] for one in document["signatures"] if one["sig"]} & set(roles[name]["keyids"])
            ends = datetime.fromisoformat(document["signed"]["expires"].replace("Z", "+00:00"))
            if len(signed) < roles[name]["threshold"] or ends - at <= SOON:
                return False
    except (AshatError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _read(file: Path) -> Any:
    return read_json(file, limit=_TRUST_LIMIT)
