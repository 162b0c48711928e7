"""Evidence as something that can be kept: the document, the command, and the page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page

from ashat.cli.main import run
from ashat.common.canonical_json import canonical_json
from ashat.deployment.state_machine import Stage
from ashat.errors import EvidenceError
from ashat.verification.evidence import Evidence, figure_in_words
from ashat.verification.findings import worst_first
from tasks.checks.kit.base import CheckResult
from tasks.verify.evidence_page import evidence_page
from tests.support.builders.deployments import open_ledger, record
from tests.support.builders.evidence import check, evidence, finding
from tests.support.drivers.browser import open_browser
from tests.support.processes.deploy_cli import environment
from tests.support.processes.forks import FORKS

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> {{ 7*7 }} &amp; \"'> \u202eevil\x1b[2J"
PHONE = {"width": 390, "height": 800}
PLAIN = "<img src=x onerror=alert(1)><script>alert(2)</script> {{ 7*7 }} &amp; \"'> \\u202eevil\\x1b[2J"


# The document.


def test_a_document_is_written_as_it_was_read() -> None:
    found = evidence()
    assert Evidence.read(found.document()) == found
    assert canonical_json(Evidence.read(found.document()).document()) == found.canonical
    assert hashlib.sha256(found.canonical).hexdigest() == found.digest
    assert found.check("security") is not None
    assert found.check("nothing") is None


def test_what_an_earlier_format_lacks_is_not_added_to_it() -> None:
    earlier = evidence(format="ashat-evidence/2")
    document = earlier.document()
    assert "sbom" not in document
    assert "unseen" not in document["checks"][-1]["findings"][0]
    assert Evidence.read(json.loads(canonical_json(document))).digest == earlier.digest
    assert CheckResult.from_json(earlier.checks[-1].result()).findings[0].count == 1


def test_a_time_may_be_given_as_one() -> None:
    moment = datetime(2026, 11, 24, 12, tzinfo=timezone(timedelta(hours=2)))
    found = Evidence.model_validate(evidence().document() | {"began": moment})
    assert found.began == "2026-11-24T10:00:00+00:00"


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in evidence().document().items() if key != name}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({}, "does not say which format"),
        ({"format": "ashat-evidence/4"}, "'ashat-evidence/4', which a newer version wrote: upgrade"),
        ({"format": "ashat-evidence/1"}, "'ashat-evidence/1'"),
        (_without("rehearsal"), "rehearsal: Field required"),
        (_without("bundle"), "bundle: Field required"),
        (evidence().document() | {"surprise": 1}, "surprise: Extra inputs are not permitted"),
        (evidence().document() | {"attempt": "1"}, "attempt: Input should be a valid integer"),
        (evidence().document() | {"attempt": True}, "attempt: Input should be a valid integer"),
        (evidence().document() | {"policy_digest": "a" * 64}, "policy_digest must be that of the policy"),
        (evidence().document() | {"began": "24 November"}, "began: Value error, a time is written as RFC 3339"),
        (evidence().document() | {"began": "2026-11-24T10:00:00"}, "with its offset"),
        (evidence().document() | {"checks": [check("a", "A"), check("a", "A")]}, "a check stands in it once"),
        (evidence().document() | {"checks": [check("a", "A", at=None)]}, "checks.0.at: Input should be a valid string"),
        (evidence().document() | {"checks": [check("a", "A", figures={"ms": 1.5})]}, "checks.0.figures.ms"),
        (evidence().document() | {"checks": [check("a", "A", inputs={"share": 0.5})]}, "float has no canonical JSON"),
        (evidence().document() | {"policy": None}, "policy: Input should be a valid dictionary"),
    ],
)
def test_what_is_no_evidence_is_refused_in_a_line(document: dict[str, Any], told: str) -> None:
    with pytest.raises(EvidenceError) as refused:
        Evidence.read(document)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("startup_ms", 320, ("startup", "320 ms")),
        ("p95_us", 1250, ("p95", "1.25 ms")),
        ("p95_us", 12000, ("p95", "12 ms")),
        ("error_per_mille", 3, ("error", "0.3 %")),
        ("modules_loaded", 6, ("modules loaded", "6")),
    ],
)
def test_a_figure_is_told_with_its_unit(name: str, value: int, told: tuple[str, str]) -> None:
    assert figure_in_words(name, value) == told


# The command.


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose ledger holds an update with evidence, one with evidence of an earlier attempt, and one without."""
    home = tmp_path_factory.mktemp("command") / "home"
    with open_ledger(home) as ledger:
        record(ledger, "UPD-1", Stage.AWAITING_APPROVAL)
        record(ledger, "UPD-2", Stage.FAILED)
        record(ledger, "UPD-2", Stage.PUSHED)
        record(ledger, "UPD-3", Stage.CANCELLED)
    return home


def _digest(home: Path, update_id: str, attempt: int | None = None) -> str:
    with open_ledger(home) as ledger:
        digest = ledger.load(update_id, attempt).evidence
    assert digest
    return digest


def _says(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What `deploy evidence` says, on stdout, or where it fails as its one line on stderr."""
    assert run(["evidence", *words]) == code
    shown = capsys.readouterr()
    if code:
        assert shown.out == ""
        assert len(shown.err.splitlines()) == 1
        return shown.err
    assert shown.err == ""
    return shown.out


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home, as the one that the commands of this process use."""
    monkeypatch.setenv("ASHAT_HOME", str(home))
    return home


def test_it_tells_a_person_everything(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, digest = _says(capsys, "UPD-1"), _digest(here, "UPD-1")
    for words in (
        "🔎 Evidence of UPD-1: 6 checks: 1 warned, 1 could not tell, 4 passed\n",
        digest,
        f"type {digest[-8:]}, its last 8 characters",
        "version 9.4.1",
        "commit cccccccccccc on main, by kim@alpha",
        'warns = ["security"]',
        "✅ back in 1400 ms and 1310 ms, forward in 1600 ms and 1580 ms; 44 files compared",
        "✅ health: 4 of 4 seeded faults caught",
        "✅ Server health: 8 of 8 looks healthy",
        "startup 320 ms",
        "⚠️ Database: the pool could not be asked",
        "warns: 1 header\n         medium: no Content-Security-Policy on / (header, /)",
        "for the record: 1 executable\n         low: ",
        "from the evidence ef0d4fb62f03…",
    ):
        assert words in told or words in " ".join(told.split()), words


def test_an_earlier_attempt_can_be_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "deploy verify UPD-2" in _says(capsys, "UPD-2", code=1)
    assert "has no evidence: nothing was verified" in _says(capsys, "UPD-3", code=1)
    assert _digest(here, "UPD-2", 1) in _says(capsys, "UPD-2", "--attempt", "1")
    assert "No deployment 'UPD-2' attempt 3 is known" in _says(capsys, "UPD-2", "--attempt", "3", code=1)
    assert "No deployment 'NOPE' is known" in _says(capsys, "NOPE", code=1)


def test_evidence_that_is_lost_or_altered_or_strange_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("ASHAT_HOME", str(home))
    _swapped(home, {"format": "ashat-evidence/9"})
    assert "a newer version wrote: upgrade" in _says(capsys, "UPD-1", code=1)
    _change(home, "UPDATE documents SET body = '{}'")
    assert "was altered" in _says(capsys, "UPD-1", code=1)
    _change(home, "DELETE FROM documents")
    told = _says(capsys, "UPD-1", "--json", code=1)
    assert "holds no document" in told
    assert "It was the evidence of 'UPD-1': restore the ledger from a backup." in told


def test_a_page_that_cannot_be_written_is_one_line(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Is a directory" in _says(capsys, "UPD-1", "--html", str(tmp_path), code=2)
    assert "No such file or directory" in _says(capsys, "UPD-1", "--html", str(tmp_path / "no" / "page"), code=2)


def test_text_from_a_release_cannot_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _swapped(tmp_path / "home", _hostile().document())
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    told = _says(capsys, "UPD-1")
    assert PLAIN in told
    assert not any(char in told for char in "\x1b\u202e")


def test_reading_imports_neither_prefect_nor_the_tasks_and_the_json_is_what_the_digest_names(home: Path) -> None:
    script = (
        "import sys; from ashat.cli.main import run; code = run(sys.argv[1:]);"
        "heavy = ('prefect', 'tasks', 'jinja2', 'httpx', 'fastapi', 'rich');"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr);"
        "sys.exit(code)"
    )
    words = [sys.executable, "-c", script, "evidence", "UPD-1", "--json"]
    done = subprocess.run(words, env=environment(home), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"[]\n")
    assert hashlib.sha256(done.stdout).hexdigest() == _digest(home, "UPD-1")


def test_a_page_needs_no_prefect(home: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['prefect'] = None; from ashat.cli.main import run; sys.exit(run(sys.argv[1:]))"
    page = tmp_path / "page.html"
    done = FORKS.run(["-c", script, "evidence", "UPD-1", "--html", str(page)], env=environment(home))
    assert (done.stdout, done.stderr) == (f"📄 {page}: the evidence {_digest(home, 'UPD-1')}\n", "")
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_a_page_without_its_libraries_is_one_line(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tasks.verify.evidence_page", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    told = _says(capsys, "UPD-1", "--html", str(tmp_path / "page.html"), code=1)
    assert told == "❌ The page needs jinja2, which is not installed: pip install 'ashat-deploy[operator]'.\n"
    assert not (tmp_path / "page.html").exists()


def _swapped(home: Path, document: dict[str, Any]) -> str:
    """A ledger in which the evidence of UPD-1 is `document`; its digest."""
    with open_ledger(home) as ledger:
        state = record(ledger, "UPD-1", Stage.AWAITING_APPROVAL)
        digest = ledger.put_document("evidence", document)
    _change(home, f"UPDATE events SET body = replace(body, '{state.evidence}', '{digest}')")
    return digest


def _change(home: Path, statement: str) -> None:
    connection = sqlite3.connect(home / "ledger.db")
    with connection:
        connection.execute(statement)
    connection.close()


# The page.


def _hostile() -> Evidence:
    """Evidence in which a release says whatever it can."""
    checks = [
        check("own", HOSTILE, "fail", HOSTILE, findings=[finding("high", HOSTILE, HOSTILE, HOSTILE)]),
        check("x", "X", inputs={HOSTILE: [HOSTILE]}, figures={HOSTILE: 1}, version=HOSTILE),
    ]
    source = {"name": HOSTILE, "commit": None, "branch": HOSTILE, "dirty": True, "who": HOSTILE}
    public = {"name": HOSTILE, "url": "javascript:alert(3)", "ran_before": None}
    return evidence(
        version=HOSTILE,
        tool=HOSTILE,
        source=source,
        public=public,
        target={"name": HOSTILE, "bundle": None, "unknown": HOSTILE},
        rehearsal={"outcome": "fail", "detail": HOSTILE, "back_ms": [], "forward_ms": [], "trees": []},
        self_test={HOSTILE: {"version": HOSTILE, "caught": 1, "seeded": 2}},
        outcome="failed",
        checks=checks,
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        found = opened.context.browser
        assert found is not None
        yield found


@contextmanager
def _opened(browser: Browser, directory: Path, found: Evidence, **options: Any) -> Iterator[Page]:
    """The page of `found`, from its file, without a network; it may load nothing, run nothing, complain of nothing."""
    path = directory / "page.html"
    path.write_text(evidence_page(found), "utf-8")
    wrong: list[str] = []

    def alerted(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    page = browser.new_page(offline=True, **options)
    page.on("dialog", alerted)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.as_uri())
    yield page
    page.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(("scheme", "scripts"), [("light", True), ("dark", False)])
def test_the_page_shows_it_all(browser: Browser, tmp_path: Path, scheme: str, scripts: bool) -> None:
    found = evidence()
    with _opened(browser, tmp_path, found, color_scheme=scheme, java_script_enabled=scripts) as page:
        _shows(page, found)


def _shows(page: Page, found: Evidence) -> None:
    assert page.locator("#digest").inner_text() == found.digest
    assert page.locator("#tail").inner_text() == found.digest[-8:]
    rows = [row.locator("td").all_inner_texts()[:3] for row in page.locator(".checks tbody tr").all()]
    assert [(row[0], row[1], row[2].partition("\n")[0]) for row in rows] == [
        (each.outcome, each.title, each.seen) for each in worst_first(found.checks)
    ]
    shown = page.locator("main").inner_text()
    for words in (
        "no Content-Security-Policy on /",
        "kernel/faults.py",
        "taken over from the evidence ef0d4fb62f03",
        "back, time 1",
        "1.40 s",
        "Only warn",
        "performance: 90",
        "4 of 4",
        "c" * 40,
        found.policy_digest or "",
    ):
        assert words in shown, words
    plot = page.locator("figure svg")
    box = plot.bounding_box()
    assert box is not None
    assert min(box["width"], box["height"]) > 200
    assert "300 answers" in page.locator("figcaption").inner_text()


@pytest.mark.needs("chromium")
def test_the_document_can_be_saved_from_the_page(browser: Browser, tmp_path: Path) -> None:
    found = evidence()
    with _opened(browser, tmp_path, found, java_script_enabled=False) as page:
        with page.expect_download() as saved:
            page.locator("#document").click()
        assert saved.value.suggested_filename == "UPD-1-1.evidence.json"
        assert hashlib.sha256(Path(saved.value.path()).read_bytes()).hexdigest() == found.digest
        page.locator("details:has(#json) summary").click()
        assert json.loads(page.locator("#json").inner_text()) == found.document()


@pytest.mark.needs("chromium")
def test_text_from_a_release_stays_text(browser: Browser, tmp_path: Path) -> None:
    with _opened(browser, tmp_path, _hostile(), viewport=PHONE) as page:
        assert page.locator("main img, main script, main iframe, a[href^='javascript']").count() == 0
        first = page.locator(".checks tbody tr").first.locator("td").all_inner_texts()[:3]
        assert first == ["fail", PLAIN, PLAIN]
        page.locator("#check-x summary").click()
        assert json.loads(page.locator("#check-x pre").inner_text()) == {HOSTILE: [HOSTILE]}
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "long words are broken"


def test_the_page_has_each_path_that_was_measured_beside_the_release_before() -> None:
    document = evidence().document()
    measured = next(check for check in document["checks"] if check["series"].get("new_us"))
    measured["inputs"] = {"paths": ["/a", "/<b>"]}
    for which, tail in (("new", 41_000), ("old", 2_500)):
        measured["series"] |= {f"{which}_by_path_p{each}_us": [1000, 2000] for each in (50, 95)}
        measured["series"] |= {f"{which}_by_path_p99_us": [tail, 3000], f"{which}_by_path_bytes": [900, 12]}
    text = evidence_page(Evidence.read(document))
    assert "<td>/a</td>" in text
    assert "41 ms (2.5 ms)" in text
    assert "900 B (900 B)" in text
    assert "<td>/&lt;b&gt;</td>" in text
    assert "by path" not in text.partition("In brackets")[2].partition('id="json"')[0]
    for odd in ({"paths": 3}, {"paths": ["/a", "/b", "/c", "/d"]}, {}):
        measured["inputs"] = odd
        assert "<html" in evidence_page(Evidence.read(document))


def test_the_page_names_no_address_and_no_script() -> None:
    for found in (evidence(), _hostile()):
        text = evidence_page(found)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "<script" not in text.lower()
        assert "<img" not in text.lower()
        for attribute in re.findall(r"""\b(?:src|href|xlink:href|action|data)\s*=\s*["']([^"']*)""", text):
            assert attribute.startswith(("#", "data:")), attribute
        assert not re.search(r"@import|url\((?!#)", text)
        encoded = re.search(r'href="data:application/json;base64,([^"]*)"', text)
        assert encoded
        assert hashlib.sha256(base64.b64decode(encoded[1])).hexdigest() == found.digest
