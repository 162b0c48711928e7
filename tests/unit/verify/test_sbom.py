"""The SBOM of a release: by CycloneDX' own schema, the same each time, and shown by `deploy sbom`."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.cli.main import run
from ashat.common.canonical_json import canonical_json
from ashat.deployment.state_machine import Stage
from tasks.checks.scan.packages import PACKAGES_LIMIT, Declared
from tasks.checks.scan.versions import ECOSYSTEMS
from tasks.verify.sbom import SIZE_LIMIT, package_url, sbom_of
from tests.support.builders.deployments import open_ledger, record
from tests.support.builders.evidence import evidence

MANIFEST = Manifest.from_files([FileEntry("raos.toml", 3, 0o644, "ab" * 32)])


def declared() -> Declared:
    found = Declared()
    found.add("uv.lock", "PyPI", "Django", "5.0.1")
    found.add("package-lock.json", "npm", "@b/c", "1.2.3", dev=True)
    found.add("app.jar\u202e!/x", "Maven", "org.example:core", "1.0")
    found.add("go.mod", "Go", "example.com/a/b", "v1.2.3")
    found.add("requirements.txt", "PyPI", "flask", None)
    found.add("requirements.txt", "PyPI", "django", None)
    found.elsewhere("requirements.txt", "PyPI")
    return found


def test_it_is_cyclonedx_and_the_same_each_time() -> None:
    document = sbom_of("RaOS", "9.4.1", MANIFEST, declared())
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    again = declared()
    again.packages = dict(reversed(again.packages.items()))
    assert canonical_json(sbom_of("RaOS", "9.4.1", MANIFEST, again)) == canonical_json(document)
    assert [(each["purl"], each.get("scope")) for each in document["components"]] == [
        ("pkg:golang/example.com/a/b@v1.2.3", "required"),
        ("pkg:maven/org.example/core@1.0", "required"),
        ("pkg:npm/%40b/c@1.2.3", "optional"),
        ("pkg:pypi/django@5.0.1", "required"),
        ("pkg:pypi/flask", None),
    ]
    assert document["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": MANIFEST.digest}]
    assert "\u202e" not in json.dumps(document, ensure_ascii=False)


def test_it_never_says_that_it_is_complete() -> None:
    whole = Declared()
    whole.add("uv.lock", "PyPI", "django", "5.0.1")
    for found, aggregate in ((whole, "unknown"), (declared(), "incomplete")):
        document = sbom_of("RaOS", "1", MANIFEST, found)
        assert document["compositions"] == [{"aggregate": aggregate, "assemblies": ["release"]}]


def test_each_ecosystem_has_its_package_url() -> None:
    urls = {system: package_url(system, "a/b" if system in ("Go", "Packagist") else "a", "1") for system in ECOSYSTEMS}
    assert urls == {
        "PyPI": "pkg:pypi/a@1",
        "npm": "pkg:npm/a@1",
        "NuGet": "pkg:nuget/a@1",
        "Maven": "pkg:maven/a@1",
        "Go": "pkg:golang/a/b@v1",
        "crates.io": "pkg:cargo/a@1",
        "RubyGems": "pkg:gem/a@1",
        "Packagist": "pkg:composer/a/b@1",
        "conda": "pkg:conda/a@1",
        "Debian": "pkg:deb/debian/a@1",
        "Alpine": "pkg:apk/alpine/a@1",
    }


def test_it_is_bounded_and_says_that_it_was_cut() -> None:
    found = Declared()
    for number in range(PACKAGES_LIMIT):
        found.add("d/" * 200 + "uv.lock", "PyPI", f"{'p' * 150}{number}", "1.0")
    document = sbom_of("RaOS", "1", MANIFEST, found)
    assert len(canonical_json(document)) <= SIZE_LIMIT
    assert 5_000 < len(document["components"]) < PACKAGES_LIMIT
    assert document["compositions"][0]["aggregate"] == "incomplete"


# The command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an update whose evidence names an SBOM, one whose evidence names none, and one without evidence."""
    home = tmp_path / "home"
    with open_ledger(home) as ledger:
        digest = ledger.put_document("sbom", sbom_of("RaOS", "9.4.1", MANIFEST, declared()))
        state = record(ledger, "UPD-1", Stage.AWAITING_APPROVAL)
        new = ledger.put_document("evidence", evidence(sbom=digest).document())
        record(ledger, "UPD-2", Stage.AWAITING_APPROVAL)
        record(ledger, "UPD-3", Stage.PUSHED)
    connection = sqlite3.connect(home / "ledger.db")
    with connection:
        connection.execute(f"UPDATE events SET body = replace(body, '{state.evidence}', '{new}')")
    connection.close()
    monkeypatch.setenv("ASHAT_HOME", str(home))
    return home


def test_a_person_sees_the_packages_and_a_file_has_the_document(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sbom", "UPD-1"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("📦 UPD-1 is built from 5 packages: 1 golang, 1 maven, 1 npm, 2 pypi\n")
    for line in (
        "  pkg:pypi/django@5.0.1\n",
        "  pkg:pypi/flask, without an exact version\n",
        "  pkg:npm/%40b/c@1.2.3, for development only\n",
        "Not all of it could be read or told",
    ):
        assert line in told
    out = tmp_path / "sbom.cdx.json"
    assert run(["sbom", "UPD-1", "--out", str(out)]) == 0
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    assert digest in told
    assert capsys.readouterr().out == f"📄 {out}: the SBOM {digest}\n"
    assert run(["sbom", "UPD-1", "--json"]) == 0
    assert capsys.readouterr().out.encode() == out.read_bytes()
    assert run(["evidence", "UPD-1"]) == 0
    assert f"SBOM        {digest}" in capsys.readouterr().out


def test_where_there_is_none_a_line_says_why(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code, why in (
        (["UPD-2"], 1, "of a version that made no SBOM: deploy verify UPD-2 --fresh"),
        (["UPD-3"], 1, "has no SBOM yet: a verification makes one"),
        (["UPD-9"], 1, "No deployment 'UPD-9' is known"),
        (["UPD-1", "--out", str(home)], 2, "Is a directory"),
    ):
        assert run(["sbom", *words]) == code
        told = capsys.readouterr()
        assert (told.out, len(told.err.splitlines())) == ("", 1)
        assert why in told.err
