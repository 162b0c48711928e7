"""Implement `deploy open`: the page of an update's run, with its form, or its evidence, in the browser."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.terminal import output
from ashat.common.home import home
from ashat.errors import ControlPlaneError, SessionError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.cli.control_plane.api import PrefectApi
    from ashat.deployment.state_machine import State


def open_page(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update.")],
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Its evidence, as one page in a file of mode 0600, instead of its run.")
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="Only print the address; open nothing.")] = False,
) -> None:
    """Open the run in which an update is decided, or else its last one, in Prefect's UI; or its evidence. Where there
    is no browser, print the address."""
    with open_ledger() as ledger:
        state = ledger.load(update_id)
    if evidence:
        _open_evidence(state, link=link)
    else:
        _open_run(state, link=link)


def _open_evidence(state: State, *, link: bool) -> None:
    from ashat.cli.commands.evidence import page_of
    from ashat.cli.control_plane.sign_in import open_browser
    from ashat.common.files import replace_file

    file = home().resolve() / "pages" / f"{state.update_id}-{state.attempt}.html"
    page = page_of(state)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(file, page.encode(), mode=0o600, durable=False)
    if link or not open_browser(file):
        output.say(file.as_uri())
    else:
        output.say(f"{file} opens in the browser.")


def _open_run(state: State, *, link: bool) -> None:
    from ashat.cli.control_plane.api import known_api
    from ashat.cli.control_plane.connect import ControlPlane, external_control_plane, running_state
    from ashat.cli.control_plane.sign_in import can_open, open_browser, write_sign_in
    from ashat.cli.control_plane.state import read_state

    root = home()
    api, embedded = known_api(root), running_state(root)
    external = external_control_plane(root)
    if api is None or (external is None and embedded is None):
        raise ControlPlaneError("The control plane, which shows the runs, does not run: deploy up starts it.")
    plane = external or ControlPlane(api.url, api.url.removesuffix("/api"), embedded=True)
    address = plane.run_url(_run_of(state, api))
    if link or not can_open():
        output.say(address)
        if not link and plane.embedded:
            output.note("It asks for the password that deploy ui --password prints.")
        return
    kept = None if external else read_state(root)
    opened = open_browser(write_sign_in(root, kept, address.removeprefix(plane.ui_url))) if kept else None
    if opened is None:
        opened = webbrowser.open(address)
    output.say(f"{address} opens in the browser." if opened else address)


def _run_of(state: State, api: PrefectApi) -> str:
    """Find the run that asks, or asked last; else the newest that is tagged with the update.

    Raises:
        SessionError: there is none.
    """
    request = state.awaited(output.now()) or state.approvals.get("rollback") or state.gate
    if request is not None and request.run:
        return request.run
    wanted = {
        "flow_runs": {"tags": {"all_": [f"update:{state.update_id}"]}},
        "sort": "EXPECTED_START_TIME_DESC",
        "limit": 1,
    }
    found = api.ask("POST", "/flow_runs/filter", wanted)
    if not (isinstance(found, list) and found and isinstance(found[0], dict)):
        raise SessionError(
            f"Prefect has no run of '{state.update_id}' yet, or not any more: deploy history shows more."
        )
    return str(found[0].get("id"))
