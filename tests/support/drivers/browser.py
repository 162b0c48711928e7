"""What a person does in Prefect's UI, in a real browser: run a deployment, answer a gate, cancel and retry a run.

`PrefectUi` is the first of Prefect 3.9's two UIs, which the address of a run opens, and `PrefectUiV2` the second. Every
wait is for a condition, with a deadline that leaves a loaded machine its time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Dialog, Locator, Page, Response, expect, sync_playwright

from ashat.cli.control_plane.sign_in import write_sign_in
from ashat.cli.control_plane.state import read_state
from tests.support.needs import chromium_path
from tests.support.processes.prefect_api import ask_prefect

WAIT_MS = 120_000
WIDTH, HEIGHT = 1200, 1000
_PRESSES = 10
_FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --disable-3d-apis"
)


@contextmanager
def open_browser(*flags: str) -> Iterator[Page]:
    """A page of a headless Chromium, started with more `flags`, which is closed with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=[*_FLAGS.split(), *flags])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, timezone_id="UTC", locale="en-GB")
        page.set_default_timeout(WAIT_MS)
        try:
            yield page
        finally:
            browser.close()


class PrefectUi:
    """Prefect's UI as `deploy ui` of `home` opens it in `page`; `scripts` are the alerts that any page let run."""

    below = ""

    def __init__(self, page: Page, home: Path) -> None:
        state = read_state(home)
        assert state is not None
        self.page = page
        self.scripts: list[str] = []
        self._ui = state.ui_url + self.below
        self._home = home
        page.on("dialog", self._noted)
        page.goto(write_sign_in(home, state, f"{self.below}/flows").as_uri())
        page.wait_for_url(f"{self._ui}/flows")

    def run(self, deployment: str, *switched_on: str, **fields: str) -> str:
        """Fill in the run form of a deployment (`flow/name`) and submit it; the new run's id."""
        titles = {name: field["title"] for name, field in self.show_form(deployment).items()}
        self._fill({titles[name]: text for name, text in fields.items()}, [titles[name] for name in switched_on])
        answer = self._press(self.page.get_by_role("button", name="Submit"), "/create_flow_run")
        assert answer.ok, answer.text()
        created: dict[str, str] = answer.json()
        return created["id"]

    def show_form(self, deployment: str) -> dict[str, Any]:
        """Open the run form of a deployment (`flow/name`); the schema of its fields."""
        found = ask_prefect(self._home, "GET", f"/deployments/name/{deployment}")
        self.page.goto(f"{self._ui}/deployments/deployment/{found['id']}/run")
        self.page.locator("form textarea").first.wait_for()
        fields: dict[str, Any] = found["parameter_openapi_schema"]["properties"]
        return fields

    def show_runs(self) -> None:
        """Open the list of runs, and wait until it shows one."""
        self.page.goto(f"{self._ui}/runs")
        self.page.get_by_role("link", name=re.compile("^approve ")).first.wait_for()

    def _fill(self, texts: dict[str, str], switches: list[str]) -> None:
        """Fill in the fields of the form that is open, by their titles, and switch some on."""
        form = self.page.locator("form")
        for title, text in texts.items():
            _field(form, title).locator("textarea").fill(text)
        for title in switches:
            _field(form, title).get_by_role("switch").click()

    def show_run(self, run: str, state: str) -> None:
        """Open a run's page and wait until it shows that state."""
        self.page.goto(f"{self._ui}/runs/flow-run/{run}")
        self.await_state(state)

    def await_state(self, state: str) -> None:
        """Wait until the run that is open shows that state."""
        self.page.locator(".state-badge", has_text=re.compile(rf"^\s*{state}\s*$")).first.wait_for()

    def open_gate(self) -> Locator:
        """The dialog that a suspended run's Resume opens: the evidence, and the form below it."""
        self.page.get_by_role("button", name="Resume").click()
        dialog = self._dialog()
        dialog.locator("h3").first.wait_for()
        _field(dialog, "Decision").wait_for()
        return dialog

    def read_asked(self) -> str:
        """Read what the open gate's first field says of the decision, all of which is to be seen without scrolling."""
        described = _field(self._dialog(), "Decision").locator(".markdown-renderer").first
        expect(described).to_be_in_viewport(ratio=1)
        return described.inner_text()

    def fill_gate(self, decision: str, evidence: str, approver: str = "", comment: str = "") -> None:
        """Fill in the gate's form, which is open."""
        form = self._dialog()
        # Prefect's list closes at once where its box is clicked; its arrows open it.
        _field(form, "Decision").locator(".p-select-button__icon").click()
        self.page.get_by_role("option", name=decision, exact=True).click()
        _field(form, "The evidence's last 8 characters").locator("textarea").fill(evidence)
        _field(form, "Who you are").locator("textarea").fill(approver)
        _field(form, "Comment").locator("textarea").fill(comment)

    def submit_gate(self) -> str:
        """Submit the gate's form; what Prefect made of it: ACCEPT, or REJECT or ABORT."""
        answered: dict[str, str] = self._press(self._dialog().get_by_role("button", name="Submit"), "/resume").json()
        return answered["status"]

    def answer(self, run: str, decision: str, evidence: str, approver: str = "", comment: str = "") -> None:
        """Answer the gate of a suspended run."""
        self.show_run(run, "Suspended")
        self.open_gate()
        self.fill_gate(decision, evidence, approver, comment)
        assert self.submit_gate() == "ACCEPT"

    def can_be_retried(self) -> bool:
        """Whether the suspended run that is open has a button for that."""
        self.page.get_by_role("button", name="Resume").wait_for()
        return self.page.get_by_role("button", name="Retry").count() > 0

    def cancel(self, run: str) -> None:
        """Cancel a suspended run."""
        self.show_run(run, "Suspended")
        self.page.get_by_role("button", name="Cancel").first.click()
        self._press(self._dialog().get_by_role("button", name="Confirm"), "/set_state")
        self.await_state("Cancelled")

    def retry(self, run: str, state: str) -> None:
        """Retry a run that ended in `state`."""
        self.show_run(run, state)
        self.page.get_by_role("button", name="Retry").click()
        self._press(self._dialog().get_by_role("button", name="Retry"), "/set_state")

    def artifact(self, run: str, key: str) -> Locator:
        """A Markdown artifact of a run, opened from the run's page."""
        self._open_artifact(run, key)
        shown = self.page.locator("article").filter(has=self.page.locator("h1"))
        shown.wait_for()
        return shown

    def drawing(self, run: str, key: str) -> Locator:
        """The picture that an image artifact of a run shows, opened from the run's page."""
        self._open_artifact(run, key)
        shown = self.page.locator("img[src^='data:image/svg']").first
        shown.wait_for()
        return shown

    def _open_artifact(self, run: str, key: str) -> None:
        self.page.goto(f"{self._ui}/runs/flow-run/{run}")
        self.page.get_by_text("Artifacts", exact=True).click()
        self.page.get_by_role("link").filter(has_text=key).first.click()

    def _press(self, button: Locator, request: str) -> Response:
        """Press a button that makes a request, again while Prefect's SQLite is locked, as the person would."""
        for _ in range(_PRESSES):
            with self.page.expect_response(lambda answer: answer.url.endswith(request)) as answered:
                button.click()
            if answered.value.status != 503:
                break
        return answered.value

    def _dialog(self) -> Locator:
        dialog = self.page.get_by_role("dialog")
        dialog.wait_for()
        return dialog

    def _noted(self, dialog: Dialog) -> None:
        self.scripts.append(dialog.message)
        dialog.dismiss()


class PrefectUiV2(PrefectUi):
    """The second UI, in which Resume is an entry of a menu."""

    below = "/v2"

    def await_state(self, state: str) -> None:
        """Wait until the run that is open shows that state."""
        badges = self.page.locator("[data-slot=badge]")
        badges.filter(has_text=re.compile(rf"^\s*{state}\s*$")).first.wait_for()

    def show_block_form(self, slug: str) -> Locator:
        """Open the form that makes a block of that type."""
        self.page.goto(f"{self._ui}/blocks/catalog/{slug}/create")
        form = self.page.locator("form")
        form.get_by_role("button", name="Save").wait_for()
        return form

    def save_block(self) -> None:
        """Save the block whose form is open."""
        answer = self._press(self.page.get_by_role("button", name="Save"), "/block_documents/")
        assert answer.ok, answer.text()

    def menu(self) -> list[str]:
        """Open the menu of the run that is open; its entries."""
        self.page.get_by_role("button", name="Open menu").first.click()
        self.page.get_by_role("menuitem").first.wait_for()
        return self.page.get_by_role("menuitem").all_inner_texts()

    def open_gate(self) -> Locator:
        """The dialog that a suspended run's Resume opens."""
        self.menu()
        self.page.get_by_role("menuitem", name="Resume").click()
        dialog = self._dialog()
        dialog.locator("h3").first.wait_for()
        dialog.get_by_role("button", name="Select Decision").wait_for()
        return dialog

    def fill_gate(self, decision: str, evidence: str, approver: str = "", comment: str = "") -> None:
        """Fill in the gate's form, which is open."""
        dialog = self._dialog()
        dialog.get_by_role("button", name="Select Decision").click()
        self.page.get_by_role("option", name=decision, exact=True).click()
        for title, text in (
            ("The evidence's last 8 characters", evidence),
            ("Who you are", approver),
            ("Comment", comment),
        ):
            _labelled(dialog, title).fill(text)

    def submit_gate(self) -> str:
        """Submit the gate's form; what Prefect made of it: ACCEPT, or REJECT or ABORT."""
        answered: dict[str, str] = self._press(self._dialog().get_by_role("button", name="Resume"), "/resume").json()
        return answered["status"]

    def _fill(self, texts: dict[str, str], switches: list[str]) -> None:
        form = self.page.locator("form")
        for title, text in texts.items():
            _labelled(form, title).fill(text)
        for title in switches:
            _labelled(form, title).click()


def _labelled(form: Locator, title: str) -> Locator:
    return form.get_by_label(re.compile(rf"^{re.escape(title)}( \(Optional\))?$"))


def _field(form: Locator, name: str) -> Locator:
    title = re.compile(rf"^{re.escape(name)}( \(Optional\))?$")
    label = form.page.locator(".schema-form-property__label", has_text=title)
    return form.locator(".schema-form-property").filter(has=label)
