"""Compare what each server runs with what the record says, and show it in Prefect."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from ashat.client.node import NodeClient
from ashat.deployment.state_machine import Stage, State
from ashat.errors import AshatError, AuditError, NodeAuthError, NodeConflictError
from ashat.ledger.summaries import TROUBLES
from ashat.protocol.messages import Scope
from ashat.settings import Settings
from ashat.transparency.witness import Witness
from tasks.runtime.artifacts import publish_table
from tasks.runtime.connections import this_run
from tasks.runtime.deployment import Deployment
from tasks.runtime.notify import notify
from tasks.runtime.run import now

_TITLES = {"unreachable": "unreachable", "drift": "drifted", "doubt": "doubted"}


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
    opens, name = d.target.token().opens, d.target_name
    if Scope.PROMOTE in opens:
        return ""
    return (
        f"The token for {name} opens {', '.join(opens)} there, as a dev's does. To approve and to roll back takes the "
        f"role owner: ashat-node token add --role owner on {name}, then deploy configure omega."
    )


class Trouble(NamedTuple):
    """What is wrong with one server: it cannot be asked, it runs something else, or its journal is doubted."""

    server: str
    kind: Literal["unreachable", "drift", "doubt"]
    what: str


def drift() -> list[Trouble]:
    """List each target that cannot be asked, or runs another bundle than the record says it should."""
    ledger = this_run().ledger
    states = [ledger.load(s["update_id"], s["attempt"]) for s in ledger.summaries() if s["release_seq"]]
    found = []
    for target in sorted({state.target for state in states}):
        expected = expected_bundle([state for state in states if state.target == target])
        try:
            node = this_run().client(target)
            current = node.identity().current
            found += [Trouble(target, "doubt", why) for why in [*witness_journal(target, node), *doubts(node)]]
        except AshatError as error:
            found.append(Trouble(target, "unreachable", f"{target} does not answer: {error}"))
            continue
        runs = current.bundle if current else None
        if expected is not None and runs not in expected:
            recorded = " or ".join(sorted(_short(bundle) for bundle in expected))
            found.append(Trouble(target, "drift", f"{target} runs {_short(runs)}, the record says {recorded}"))
    return found


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
    for key, trouble in now_.items():
        if key not in before:
            notify(f"{trouble.server}: {_TITLES[trouble.kind]}", trouble.what)
    for server, kind in before.keys() - now_.keys():
        notify(f"{server}: no longer {_TITLES[kind]}", before[server, kind]["what"])


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


def expected_bundle(states: list[State]) -> set[str | None] | None:
    """Find the bundles that a target may run (None: it runs nothing) by the record of all updates that reached it; None
    if none did."""
    latest: tuple[int, set[str | None]] | None = None
    for state in states:
        back = state.rolled_back.get("omega")
        if state.release_seq is None or state.bundle is None:
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


def _short(bundle: str | None) -> str:
    return bundle[:12] if bundle else "nothing"
