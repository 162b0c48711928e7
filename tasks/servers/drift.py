"""Compare what each server runs with what the record says, and show it in Prefect."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from ashat.client.node import NodeClient
from ashat.common.identifiers import name_of_release, name_of_server
from ashat.deployment.moments import told_of_trouble
from ashat.deployment.state_machine import Stage, State
from ashat.errors import AshatError, AuditError, NodeAuthError, NodeConflictError, NotConfiguredError, TrustError
from ashat.ledger.summaries import TROUBLES
from ashat.protocol.messages import Scope
from ashat.settings import Settings
from ashat.transparency.witness import Witness
from tasks.runtime.artifacts import publish_table
from tasks.runtime.connections import this_run
from tasks.runtime.deployment import Deployment
from tasks.runtime.events import tell
from tasks.runtime.notify import notify
from tasks.runtime.run import now
from tasks.servers.endings import EndingKind, endings

_TITLES = {"unreachable": "unreachable", "drift": "drifted", "doubt": "doubted"}
_NOW_WRONG = frozenset(_TITLES)


def standings(state: State) -> list[dict[str, Any]]:
    """List what Public, the target and each Mainframe run, or why a server does not say."""
    rows = [_row(state.public), _row(state.target)]
    rows += [
        {"server": mainframe.name, "role": "mainframe", "runs": mainframe.result, "bundle": state.bundle or ""}
        for mainframe in state.mainframes
    ]
    return rows


def publish_servers(state: State) -> None:
    """Leave the table of what each server runs with the flow run."""
    publish_table(f"servers-{state.update_id}-{state.attempt}", standings(state), "Where each server stands")


def _row(name: str) -> dict[str, Any]:
    try:
        identity = this_run().client(name).identity()
    except AshatError as error:
        return {"server": name, "role": "", "runs": f"no answer: {error}", "bundle": ""}
    current = identity.current
    return {
        "server": identity.name,
        "role": identity.role.value,
        "runs": current.update_id if current else "nothing",
        "bundle": current.bundle if current else "",
    }


def why_not_owner(d: Deployment) -> str:
    """Say why the token configured for a target lets nobody approve or roll back there; "" if it does.

    Raises:
        NodeError: the target does not answer, or does not know the token.
        NotConfiguredError: there is no such server.
    """
    opens, name = d.target.token().opens, d.the_target
    if Scope.PROMOTE in opens:
        return ""
    return (
        f"The token for {name} opens {', '.join(opens)} there, as a dev's does. To approve and to roll back takes the "
        f"role owner: ashat-node token add --role owner on {name}, then deploy configure omega."
    )


class Trouble(NamedTuple):
    """What is wrong with one server, which people call `name`: it cannot be asked, it runs something else, its journal
    is doubted, or something of it ends `until` a time (RFC 3339), and `how` says what to do about that."""

    server: str
    name: str
    kind: Literal["unreachable", "drift", "doubt"] | EndingKind
    what: str
    until: str = ""
    how: str = ""

    @property
    def wrong_now(self) -> bool:
        """Say whether the server is in trouble already, and not only about to be."""
        return self.kind in _NOW_WRONG


def drift() -> list[Trouble]:
    """List each target that cannot be asked, or runs another bundle than the record says it should."""
    ledger = this_run().ledger
    states = [ledger.load(s["update_id"], s["attempt"]) for s in ledger.summaries() if s["release_seq"]]
    found = []
    for target in sorted({state.target for state in states}):
        expected = expected_bundle([state for state in states if state.target == target])
        name = _called(target)
        try:
            node = this_run().client(target)
            current = node.identity().current
            found += [Trouble(target, name, "doubt", why) for why in [*witness_journal(target, node), *doubts(node)]]
            found += about_to_end(target, name, node)
        except AshatError as error:
            found.append(Trouble(target, name, "unreachable", f"{name} does not answer: {error}"))
            continue
        runs = current.bundle if current else None
        if expected is not None and runs not in expected:
            known = {state.bundle: state.update_id for state in states}
            recorded = " or ".join(sorted(name_of_release(bundle, known.get(bundle, "")) for bundle in expected))
            what = name_of_release(runs, current.update_id if current else "")
            found.append(Trouble(target, name, "drift", f"{name} runs {what}, the record says {recorded}"))
    return found


def about_to_end(server: str, name: str, node: NodeClient) -> list[Trouble]:
    """List what ends within a month on the server that is configured as `server`, which people call `name`; or that
    what it keeps of who approves cannot be read.

    Raises:
        NodeError: it does not answer.
    """
    try:
        found = endings(server, node)
    except TrustError as error:
        return [Trouble(server, name, "doubt", f"who approves there cannot be read: {error}")]
    return [Trouble(server, name, one.kind, one.words, one.ends.isoformat(), one.how) for one in found]


def note_troubles(found: list[Trouble]) -> None:
    """Keep what is wrong with the servers where `deploy status` reads it, and notify of what is new, or over."""
    ledger = this_run().ledger
    before = {(t["server"], t["kind"]): t for t in (ledger.newest(TROUBLES) or {}).get("troubles", [])}
    now_ = {(t.server, t.kind): t for t in found}
    kept = [
        {**t._asdict(), "since": before[key]["since"] if key in before else now().isoformat(timespec="seconds")}
        for key, t in now_.items()
    ]
    if before.keys() == now_.keys() and all(before[key]["what"] == t.what for key, t in now_.items()):
        return
    ledger.put_newest(TROUBLES, {"troubles": kept})
    begun = [trouble for trouble in kept if (trouble["server"], trouble["kind"]) not in before]
    over = [before[key] for key in before.keys() - now_.keys()]
    tell([*(told_of_trouble(one) for one in begun), *(told_of_trouble(one, over=now()) for one in over)])
    for one in begun:
        notify(f"{one['name']}: {_title(one['kind'])}", one["what"])
    for one in over:
        notify(f"{one.get('name') or one['server']}: no longer {_title(one['kind'])}", one["what"])


def _title(kind: str) -> str:
    return _TITLES.get(kind) or f"about to lose its {kind}"


def witness_journal(name: str, node: NodeClient) -> list[str]:
    """Check that a server's journal of changes continues what was seen of it before, and remember how far it is now; a
    line for what is wrong. Nothing is checked if the token for the server does not open its journal.

    Raises:
        NodeError: the server does not answer.
    """
    try:
        witness = Witness.of_changes(Settings().ensure_home(), name)
        checkpoint = node.checkpoint(witness.size())
        if checkpoint is not None:
            witness.judge(checkpoint)
    except (AuditError, NodeConflictError) as error:
        return [str(error)]
    except NodeAuthError:
        pass  # a control plane without a token for it still sees what it runs
    return []


def doubts(node: NodeClient) -> list[str]:
    """List what Mainframes report to be wrong with the journal of changes of their OMEGA; nothing if the token for
    OMEGA does not open its list of Mainframes.

    Raises:
        NodeError: it does not answer.
    """
    try:
        return [f"{found.name} reports: {found.journal}" for found in node.mainframes() if found.journal]
    except NodeAuthError:
        return []


def _never_stayed(state: State) -> bool:
    """Say whether a rollback stopped it before the target ran it, or found another release there: it then says nothing
    of what the target should run."""
    back = state.rolled_back.get("omega")
    return state.stage is Stage.ROLLED_BACK and (back is None or bool(back.kept))


def expected_bundle(states: list[State]) -> set[str | None] | None:
    """Find the bundles that a target may run (None: it runs nothing) by the record of all updates that reached it; None
    if none did."""
    latest: tuple[int, set[str | None]] | None = None
    for state in states:
        back = state.rolled_back.get("omega")
        if state.release_seq is None or state.bundle is None or _never_stayed(state):
            continue
        here: tuple[int, set[str | None]] = (state.release_seq, {state.bundle})
        if state.stage is Stage.DEPLOYING or (state.rolling_back and back is None):
            here = (state.release_seq, {state.bundle, state.omega_before})
        elif state.stage is Stage.FAILED:
            here = (state.release_seq, {state.omega_before})
        elif back is not None and back.release_seq is not None and back.to_bundle is not None:
            here = (back.release_seq, {back.to_bundle})
        if latest is None or here[0] > latest[0]:
            latest = here
    return latest[1] if latest else None


def _called(target: str) -> str:
    """Name a target as people do now; by its block where it is not configured any more."""
    try:
        return name_of_server(target, this_run().server(target).title)
    except NotConfiguredError:
        return target
