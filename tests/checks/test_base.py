"""What holds for every check, whoever wrote it: it always answers, in time, and never passes by accident."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest

import tasks.checks
from ashat.bundle.manifest import FileEntry, Manifest
from ashat.client.node import NodeClient
from ashat.common.canonical_json import canonical_json
from ashat.errors import NodeUnreachableError
from ashat.raos_toml.load import load_raos_toml
from ashat.raos_toml.schema import Allow
from ashat.verification.findings import by_kind, by_section, headline
from tasks.checks import Check, CheckContext, CheckResult, Finding, all_checks, run_check
from tasks.checks.kit.assertions import differences
from tasks.checks.kit.base import KIND_LIMIT, gravest, one_line
from tasks.checks.kit.http import NoAnswerError, Web
from tasks.checks.modules import module_digest
from tasks.checks.scan.credentials import OVERLAP, TEXT_LIMIT, find_secrets
from tasks.checks.scan.files import new_executables, odd_files
from tasks.checks.security import allowed, far_entries
from tasks.selftest.faults import catalogue
from tasks.selftest.faults.security import AWS_KEY
from tests.checks.test_sample import running

ROOT = Path(__file__).parents[2]
RAOS = load_raos_toml(b'[raos]\nname = "RaOS"\nversion = "1"\n')


def entry(path: str, mode: int = 0o644) -> FileEntry:
    return FileEntry(path, 3, mode, "ab" * 32)


@pytest.fixture
def context() -> CheckContext:
    nobody = cast(NodeClient, None)
    manifest = Manifest.from_files([entry("raos.toml")])
    return CheckContext(
        public=nobody,
        app_url="http://127.0.0.1:9",
        bundle=manifest.digest,
        manifest=manifest,
        raos=RAOS,
        source=lambda path: b"",
        time_limit=0.3,
    )


class Trial(Check):
    """A check that does what its test wants."""

    name = "trial"
    title = "A trial"

    def __init__(self, behaviour: Any) -> None:
        self.behaviour = behaviour

    def run(self, context: CheckContext) -> CheckResult:
        return cast(CheckResult, self.behaviour(self, context))


def raising(error: Exception) -> Any:
    def behaviour(check: Check, context: CheckContext) -> CheckResult:
        raise error

    return behaviour


def test_the_built_in_ones_are_found_in_order() -> None:
    checks = all_checks()
    names = ["health", "modules", "api", "database", "performance", "security", "runtime"]
    assert [check.name for check in checks] == names
    assert [check.name for check in checks if check.alone] == ["performance", "runtime"]


def test_a_new_file_is_a_new_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seventh.py").write_text(
        "from tasks.checks import Check, CheckContext, CheckResult\n"
        "class Seventh(Check):\n"
        '    name = "seventh"\n'
        '    title = "The seventh"\n'
        "    def run(self, context: CheckContext) -> CheckResult:\n"
        '        return self.conclude("seen")\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(tasks.checks, "__path__", [*tasks.checks.__path__, str(tmp_path)])
    assert [check.name for check in all_checks()][-1] == "seventh"


def test_each_check_has_two_faults_seeded_at_least() -> None:
    for check in all_checks():
        assert len([fault for fault in catalogue() if fault.check == check.name]) >= 2
    assert len({fault.name for fault in catalogue()}) == len(catalogue())


def test_an_exception_is_a_failure_with_its_reason(context: CheckContext) -> None:
    result = run_check(Trial(raising(ZeroDivisionError("division by zero"))), context)
    assert (result.outcome, result.seen) == ("fail", "the check itself broke: ZeroDivisionError: division by zero")


def test_a_server_that_is_away_is_a_failure_with_its_reason(context: CheckContext) -> None:
    result = run_check(Trial(raising(NodeUnreachableError("staging does not answer."))), context)
    assert (result.outcome, result.seen) == ("fail", "could not finish: staging does not answer.")


def test_a_check_that_heeds_its_deadline_fails_in_time(context: CheckContext) -> None:
    started = time.monotonic()
    result = run_check(Trial(lambda check, limited: limited.sleep(60)), context)
    assert time.monotonic() - started < 20
    assert (result.outcome, result.seen) == ("fail", "could not finish: it did not end within its 0.3 s")


def test_a_check_that_ignores_its_deadline_is_left_behind(
    context: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.checks.kit.base.GRACE_SECONDS", 0.1)
    started = time.monotonic()
    result = run_check(Trial(lambda check, limited: time.sleep(10)), context)
    assert time.monotonic() - started < 8
    assert (result.outcome, result.seen) == ("fail", "it did not end within its 0.3 s")


@pytest.mark.parametrize("answer", [None, True, "pass"])
def test_what_is_no_result_is_a_failure(context: CheckContext, answer: object) -> None:
    assert run_check(Trial(lambda check, limited: answer), context).outcome == "fail"


def test_the_result_of_another_check_is_a_failure(context: CheckContext) -> None:
    other = CheckResult("health", "Server health", "pass", "all is well")
    assert run_check(Trial(lambda check, limited: other), context).outcome == "fail"


def test_a_figure_with_a_fraction_is_a_failure(context: CheckContext) -> None:
    result = run_check(Trial(lambda check, limited: check.conclude("good", figures={"p95_ms": 1.5})), context)
    assert result.outcome == "fail"
    assert "float has no canonical JSON form" in result.seen


def test_a_pass_in_spite_of_a_grave_finding_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="cannot pass"):
        CheckResult("trial", "A trial", "pass", "good", (Finding("high", "it burns"),))
    with pytest.raises(ValueError, match="one line"):
        CheckResult("trial", "A trial", "pass", " ")


def test_the_worst_finding_speaks() -> None:
    check = Trial(None)
    low, medium, high = Finding("low", "a"), Finding("medium", "b"), Finding("high", "c")
    assert check.conclude("good").outcome == "pass"
    assert (check.conclude("good", [low]).outcome, check.conclude("good", [low]).seen) == ("pass", "good")
    assert (check.conclude("good", [low, medium]).outcome, check.conclude("good", [low, medium]).seen) == ("warn", "b")
    result = check.conclude("good", [low, medium, high])
    assert (result.outcome, result.seen) == ("fail", "c (and 1 more)")
    assert [finding.text for finding in result.findings] == ["c", "b", "a"]


def test_many_findings_of_one_kind_hide_none_of_another() -> None:
    many = [Finding("medium", f"a {n}", "unpinned", f"{n}") for n in range(KIND_LIMIT + 30)]
    kept = gravest([*many, Finding("medium", "b", "unreadable", unseen=True), Finding("high", "c", "secret")])
    assert [kept[0].text, kept[-1].text, len(kept)] == ["c", "b", KIND_LIMIT + 3]
    assert (kept[-2].text, kept[-2].count) == ("30 more of unpinned are left out here", 30)
    assert [kind.words for kind in by_kind(kept)] == ["1 secret", "80 unpinned", "1 unreadable"]
    result = Trial(None).conclude("good", kept)
    assert result.seen == "c (and 80 unpinned, 1 unreadable more)"
    assert [section for section, _, _ in by_section(kept)] == ["fails", "warns", "not looked at"]
    worst = headline([result, Trial(None).conclude("good")])
    assert worst == "2 checks: 1 failed, 1 passed; not looked at: 1 unreadable"


def test_a_result_survives_the_evidence() -> None:
    result = Trial(None).conclude("good", [Finding("low", "a", "secret", "b")], inputs={"x": [1]}, figures={"n": 2})
    assert canonical_json(result.as_json())
    assert CheckResult.from_json(result.as_json()) == result


def test_what_a_stranger_says_becomes_one_line() -> None:
    assert one_line("a\nb\x1b[31m\tc\u202e") == r"a b\x1b[31m c\u202e"
    assert len(one_line("x" * 10_000)) == 300
    assert one_line("x" + " " * 10_000_000 + "y") == "x …"


def test_a_modules_digest_is_that_of_its_paths_and_contents() -> None:
    files = [entry("Modules/A/b.py"), entry("Modules/A/a.py")]
    assert module_digest(files) == module_digest(reversed(files))
    assert module_digest(files) != module_digest(files[:1])


@pytest.mark.parametrize(
    ("expected", "said", "differs"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["json.a.b is 2 instead of 1"]),
        ({"a": 1}, {}, ["json.a is missing"]),
        ({"a": 1}, [1], ["json is [1] instead of an object"]),
        ({"a": True}, {"a": 1}, ["json.a is 1 instead of true"]),
        ({"a": 0}, {"a": False}, ["json.a is false instead of 0"]),
        ([1, 2], [1, 2, 3], ["json is [1, 2, 3] instead of [1, 2]"]),
        ("x", None, ['json is null instead of "x"']),
    ],
)
def test_json_is_compared_by_type_and_value(expected: Any, said: Any, differs: list[str]) -> None:
    assert list(differences(expected, said)) == differs


def found(text: str) -> list[tuple[str, int, bool]]:
    return [(secret.kind, secret.line, secret.sure) for secret in find_secrets(text.encode())]


def test_credentials_are_found_with_their_lines() -> None:
    assert found(f"# comment\naws = '{AWS_KEY}'\n") == [("AWS Access Key", 2, True)]
    assert found("\n\ndb_password = 'hunter2hunter2'\n\npwd = 'correcthorse'\n") == [
        ("a password or key by its name", 3, False),
        ("a password or key by its name", 5, False),
    ]
    assert found("see postgres://app:battery@db/raos\n") == [("a password in an address", 1, False)]


def test_a_credential_is_found_anywhere_in_a_long_line() -> None:
    for before in (0, 1_520, 2_048, 30_000, TEXT_LIMIT - OVERLAP - 4, TEXT_LIMIT - 12, 2 * TEXT_LIMIT):
        assert found("first\n" + "x " * (before // 2) + AWS_KEY + " y" * 20_000) == [("AWS Access Key", 2, True)]


def test_ordinary_code_holds_none() -> None:
    sample = Path(__file__).parents[2] / "examples" / "raos"
    for file in sample.rglob("*.py"):
        assert found(file.read_text(encoding="utf-8")) == [], file
    assert found("header = 'eyJhbGciOiJub25lIn0.not-base64!'\n") == []


@pytest.mark.parametrize("unit", ["a", "password='", "eyJ", "eyJ.", "xoxb-1-", "//x", "sk-", "glagent-"])
def test_a_hostile_line_costs_little(unit: str) -> None:
    started = time.process_time()
    find_secrets(unit.encode() * (300_000 // len(unit)))
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("path", "odd"),
    [
        (".env", True),
        ("web/.env.production", True),
        (".env.example", False),
        (".git/config", True),
        ("docs/.github/x", False),
        ("keys/id_ed25519", True),
        ("a.kdbx", True),
        ("environment.py", False),
        ("x.env.md", False),
    ],
)
def test_files_that_hold_credentials_are_known_by_name(path: str, odd: bool) -> None:
    assert bool(list(odd_files(Manifest.from_files([entry(path)])))) is odd


def test_an_executable_is_named_when_it_is_new() -> None:
    before = Manifest.from_files([entry("a.sh", 0o755), entry("b.sh")])
    after = Manifest.from_files([entry("a.sh", 0o755), entry("b.sh", 0o755), entry("c.sh", 0o755)])
    assert [finding.path for finding in new_executables(before, after)] == ["b.sh", "c.sh"]
    assert list(new_executables(None, after)) == []


def test_what_is_allowed_counts_until_its_last_day() -> None:
    finding = Finding("high", "a key", "secret", "Modules/Auth/key.py")
    entry = Allow(rule="secret", path="Modules/Auth/*", reason="a revoked test key", until=date(2026, 5, 31))
    (kept,) = allowed([finding], [entry], date(2026, 5, 31))
    assert (kept.severity, kept.text) == ("low", "a key (allowed until 2026-05-31: a revoked test key)")
    (late,) = allowed([finding], [entry], date(2026, 6, 1))
    assert (late.severity, late.text) == ("high", "a key (it was allowed until 2026-05-31)")
    other = replace(finding, path="Modules/Core/key.py")
    assert [each.severity for each in allowed([other], [entry], date(2026, 5, 1))] == ["high", "low"]
    (unused,) = allowed([], [entry], date(2026, 5, 1))
    assert "matches nothing" in unused.text


def test_what_is_allowed_for_more_than_a_year_asks_for_a_nearer_day() -> None:
    entry = Allow(rule="secret", path="a.py", reason="a revoked test key", until=date(2027, 5, 31))
    assert list(far_entries([entry], date(2026, 5, 30), 366)) == []
    (far,) = far_entries([entry], date(2026, 5, 29), 366)
    assert (far.severity, far.rule) == ("medium", "")
    assert "the allow-list entry secret a.py lasts until 2027-05-31: end it within 366 days" in far.text
    (near,) = far_entries([entry], date(2027, 5, 1), 29)
    assert near.text.endswith("end it within 29 days")
    assert list(far_entries([entry], date(2027, 5, 1), 30)) == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    faults = "hang=/,drip=/health,drip-headers=/modules,huge=/api/forum/boards,redirect=/api/chat/rooms"
    with running(tmp_path_factory.mktemp("hostile") / "data", faults=faults) as program:
        yield f"http://127.0.0.1:{program.port}"


@pytest.mark.parametrize("path", ["/", "/health", "/modules"])
def test_a_server_that_dawdles_costs_no_more_than_the_limit(hostile: str, context: CheckContext, path: str) -> None:
    started = time.monotonic()
    with (
        Web(replace(context, app_url=hostile)) as web,
        pytest.raises(NoAnswerError, match=r"no whole answer within 0\.4 s"),
    ):
        web.ask(path, seconds=0.4)
    assert time.monotonic() - started < 10


def test_a_gigabyte_is_not_read(hostile: str, context: CheckContext) -> None:
    started = time.monotonic()
    with Web(replace(context, app_url=hostile)) as web, pytest.raises(NoAnswerError, match="more than 1048576 bytes"):
        web.ask("/api/forum/boards", seconds=5)
    assert time.monotonic() - started < 20


_ASKING = """
import json, resource, sys
from ashat.bundle.manifest import FileEntry, Manifest
from ashat.raos_toml.load import load_raos_toml
from tasks.checks import CheckContext, run_check
from tasks.checks.api import ApiCheck

url, path, toml = sys.argv[1:]
manifest = Manifest.from_files([FileEntry("raos.toml", 3, 0o644, "ab" * 32)])

def asked(path):
    raos = load_raos_toml((toml + '[[endpoint]]\\nname = "a"\\npath = "' + path + '"\\n').encode("utf-8"))
    context = CheckContext(
        public=None, app_url=url, bundle=manifest.digest, manifest=manifest, raos=raos, source=lambda path: b"",
        time_limit=20,
    )
    return run_check(ApiCheck(), context)

def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

asked("/")  # whatever is loaded at the first question is loaded by now
before = peak_kib()
result = asked(path)
print(json.dumps({"seen": result.seen, "grown_mib": (peak_kib() - before) / 1024}))
"""


@pytest.mark.parametrize("path", ["/api/forum/boards", "/openapi.json"])
def test_a_gigabyte_costs_a_few_megabytes(tmp_path: Path, path: str) -> None:
    with running(tmp_path / "data", faults=f"huge={path}") as program:
        toml = '[raos]\nname = "RaOS"\nversion = "1"\n[api]\nopenapi = "/openapi.json"\n'
        words = [sys.executable, "-c", _ASKING, f"http://127.0.0.1:{program.port}", path, toml]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    assert "more than " in found["seen"], found
    assert found["grown_mib"] < 32, "an answer may have 1 MiB, an OpenAPI document 4"


def test_a_redirect_is_an_answer(hostile: str, context: CheckContext) -> None:
    with Web(replace(context, app_url=hostile)) as web:
        assert web.ask("/api/chat/rooms").status == 302


def test_nobody_there_is_said_so(context: CheckContext) -> None:
    with Web(context) as web, pytest.raises(NoAnswerError, match=r"no answer: .*connect"):
        web.ask("/")
