"""Checks of one's own, as docs/checks.md shows them: in raos.toml, and in a package installed beside this one."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ashat.errors import PolicyError
from ashat.raos_toml.load import load_raos_toml
from ashat.verification.policy import Policy
from tasks.checks import CheckResult, all_checks, built_in_checks, checks_for, run_check
from tasks.checks.plugins import GROUP, CheckPackageError
from tasks.verify import proofs
from tasks.verify.policies import check_policy
from tasks.verify.proofs import version_of
from tests.support.drivers.doc_console import blocks
from tests.support.fakes.scripted_program import LEAST, Reply, context_of, replying

DOCUMENT = (Path(__file__).parents[2] / "docs" / "checks.md").read_text(encoding="utf-8")
Install = Callable[[str, str, str], None]


def shown(section: str, language: str) -> str:
    (found,) = [block for block in blocks(DOCUMENT) if (block.section, block.language) == (section, language)]
    return "\n".join(found.lines) + "\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package of one module: its name, its entry points as NAME = VALUE lines, its code."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)

    def put(package: str, points: str, code: str) -> None:
        information = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", "utf-8")
        (information / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n", "utf-8")
        (tmp_path / f"{package.replace('-', '_')}.py").write_text(code, "utf-8")

    yield put
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def trial(name: str = "trial", body: str = "return self.conclude('seen')") -> str:
    return (
        "from tasks.checks import Check, CheckContext, CheckResult\n"
        "class Trial(Check):\n"
        f"    name = {name!r}\n"
        "    title = 'A trial'\n"
        f"    def run(self, context: CheckContext) -> CheckResult:\n        {body}\n"
    )


PAGE = b'<a href="/rules">rules</a> <a href="/rules#two">two</a> <a href="/gone">gone</a> <a href="https://x.example">x</a>'


def test_the_package_of_the_document_is_found_and_runs(install: Install) -> None:
    project = tomllib.loads(shown("A check in a Python package", "toml"))["project"]
    code = shown("A check in a Python package", "python")
    assert len(code.splitlines()) < 30
    points = "\n".join(f"{name} = {value}" for name, value in project["entry-points"][GROUP].items())
    install(project["name"], points, code)
    names = [check.name for check in all_checks()]
    assert names == ["health", "modules", "api", "database", "performance", "security", "runtime", "links"]
    (links,) = [check for check in all_checks() if check.name == "links"]

    def ran(replies: dict[str, Reply]) -> CheckResult:
        with replying(replies) as program:
            return run_check(links, context_of(program, ""))

    good = ran({"GET /": Reply(PAGE), "GET /rules": Reply(b"1."), "GET /gone": Reply(b"back")})
    assert (good.outcome, good.seen) == ("pass", "2 links of the first page lead somewhere")
    bad = ran({"GET /": Reply(PAGE), "GET /rules": Reply(b"1.")})
    assert (bad.outcome, bad.seen, bad.figures) == ("fail", "/gone is a dead link: status 404", {"links": 2})


def test_the_checks_of_the_documents_raos_toml_run() -> None:
    raos = load_raos_toml((LEAST + shown("A check of the release's own", "toml")).encode("utf-8"))
    payments, greeting = checks_for(raos)[-2:]
    assert (payments.name, payments.title, greeting.name) == ("own-payments", "Payments are taken", "own-greeting")
    replies = {
        "POST /api/payments/dry-run": Reply({"accepted": True, "reference": "DE-4711"}),
        "GET /": Reply(b"Go away"),
    }
    with replying(replies) as program:
        context = context_of(program, shown("A check of the release's own", "toml"), credentials={"staff": "Bearer x"})
        assert run_check(payments, context).outcome == "pass"
        greeted = run_check(greeting, context)
        program.replies["POST /api/payments/dry-run"] = Reply({"accepted": True, "reference": "?"})
        failed = run_check(payments, context)
    assert (greeted.outcome, greeted.seen) == ("warn", "GET /: the answer does not hold 'Welcome'")
    assert failed.outcome == "fail"


@pytest.mark.parametrize(
    ("points", "code", "said"),
    [
        ("x = wrong:Trial", "import nowhere_at_all\n", "cannot be loaded (ModuleNotFoundError: No module named 'nowhe"),
        ("x = wrong:Trial", "def broken(\n", "cannot be loaded (SyntaxError: "),
        ("x = wrong:Trial", "import sys\nsys.exit(3)\n", "cannot be loaded (SystemExit: 3): mend it"),
        ("x = wrong:Other", trial(), "cannot be loaded (AttributeError: "),
        ("x = wrong:run", "def run(context): ...\n", "is no check: let it name a subclass of tasks.checks.Check"),
        ("x = wrong:Check", trial(), "is no check"),
        ("x = wrong:Trial", trial().replace("    title = 'A trial'\n", ""), "cannot be made (AttributeError: "),
        ("x = wrong:Trial", trial() + "    def __init__(self, x): ...\n", "cannot be made (TypeError: "),
        ("x = wrong:Trial", trial("health"), "names its check 'health', as ashat-deploy does: give it another name"),
        ("x = wrong:Trial", trial("own-payments"), "names its check 'own-payments': take a-z, 0-9 and -, and no own-"),
        ("x = wrong:Trial", trial("A Trial"), "names its check 'A Trial': take a-z"),
        (
            "x = wrong:Trial\ny = wrong:Trial",
            trial(),
            "names its check 'trial', as wrong 1.0 does: give it another name",
        ),
    ],
)
def test_a_package_that_brings_no_usable_check_is_named(install: Install, points: str, code: str, said: str) -> None:
    install("wrong", points, code)
    with pytest.raises(CheckPackageError) as caught:
        checks_for(load_raos_toml(LEAST.encode("utf-8")))
    message = str(caught.value)
    assert message.startswith("The package wrong 1.0 has an entry point '")
    assert said in message
    assert message.endswith("or uninstall the package.")
    assert "\n" not in message


def test_a_packages_whole_code_and_its_version_are_the_version_of_its_check(install: Install, tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    (tmp_path / "wide" / "__init__.py").write_text("", "utf-8")
    (tmp_path / "wide" / "own.py").write_text(trial(), "utf-8")
    helper, information = tmp_path / "wide" / "helper.py", tmp_path / "wide-1.0.dist-info"
    helper.write_text("LIMIT = 1\n", "utf-8")
    install("wide", "x = wide.own:Trial", "")
    (tmp_path / "wide.py").unlink()

    def version() -> str:
        proofs._code.cache_clear()
        return version_of(all_checks()[-1])

    seen = [version()]
    assert seen[0].startswith("1+")
    helper.write_text("LIMIT = 2\n", "utf-8")
    seen.append(version())
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: wide\nVersion: 1.1\n", "utf-8")
    seen.append(version())
    assert len(set(seen)) == 3, "passes of other code are not taken over"
    assert version() == seen[-1]


def test_a_policy_that_names_an_unknown_check_is_refused_with_the_known(install: Install) -> None:
    install("brings", "x = brings:Trial", trial("links"))
    warns = ["links", "own-greeting", "rehearsal"]
    check_policy(Policy(warns=warns, skips=["database"], time_limits={"performance": 90}))
    for policy, key in (
        (Policy(warns=["helth"]), "warns"),
        (Policy(skips=["helth"]), "skips"),
        (Policy(time_limits={"helth": 3}), "time_limits"),
    ):
        with pytest.raises(PolicyError) as caught:
            check_policy(policy)
        assert str(caught.value) == (
            f"The policy names a check 'helth' in {key}, and there is none: known here are health, modules, api, "
            "database, performance, security, runtime, links, and own-NAME for a release's own."
        )


def test_two_packages_may_not_share_a_name(install: Install) -> None:
    install("first", "x = first:Trial", trial())
    install("second", "x = second:Trial", trial())
    with pytest.raises(CheckPackageError, match=r"^The package second 1\.0 .* 'trial', as first 1\.0 does"):
        all_checks()
    assert len(built_in_checks()) == 7


def test_a_packages_check_that_breaks_is_a_failure_with_its_reason(install: Install) -> None:
    install("breaks", "x = breaks:Trial", trial(body="raise RuntimeError('no licence')"))
    with replying({}) as program:
        result = run_check(all_checks()[-1], context_of(program, ""))
    assert (result.outcome, result.seen) == ("fail", "the check itself broke: RuntimeError: no licence")


def test_the_document_has_the_whole_policy_and_each_of_the_built_in_checks() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \| ", DOCUMENT, re.MULTILINE)
    defaults = {name: tomllib.loads(f"x = {value}")["x"] for name, value in rows}
    assert defaults == Policy().model_dump(mode="json")
    Policy.model_validate(tomllib.loads(shown("The verification policy", "toml")))
    assert [check.title for check in built_in_checks() if f"\n## {check.title}\n" not in DOCUMENT] == []


def test_the_documents_raos_toml_is_one() -> None:
    full = load_raos_toml(shown("raos.toml", "toml").encode("utf-8"))
    assert [endpoint.auth for endpoint in full.endpoints] == [None, None, "staff"]
    allow = load_raos_toml((LEAST + shown("What a release is built from", "toml")).encode("utf-8"))
    assert allow.security.allow[0].rule == "secret"
