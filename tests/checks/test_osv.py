"""What a bundle is built from, what is known of it, and what is said where nothing can be known."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ashat.verification.policy import Policy
from tasks.checks.scan.lockfiles import read_declaration
from tasks.checks.scan.osv import AdvisoriesUnknownError, Advisory, findings, rating
from tasks.checks.scan.osv_api import ask_osv, shown
from tasks.checks.scan.osv_offline import read_copy
from tasks.checks.scan.packages import Declared, Package
from tasks.checks.scan.versions import Ecosystem, is_version, parse_version
from tasks.checks.scan.vulnerabilities import look_up
from tests.support.fakes.osv_server import osv_server

CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
MODEST = "CVSS:3.1/AV:N/AC:H/PR:L/UI:R/S:U/C:L/I:N/A:N"
REQUESTS = Package("PyPI", "requests", "2.19.0")
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def record(one: str = "GHSA-aaaa-bbbb-cccc", **changes: Any) -> dict[str, Any]:
    """A record as OSV has them: of requests before 2.20.0, unless `changes` say otherwise."""
    return {
        "schema_version": "1.7.0",
        "id": one,
        "modified": "2026-11-01T00:00:00Z",
        "published": "2018-10-29T00:00:00Z",
        "aliases": ["CVE-2018-18074"],
        "summary": "Insufficiently protected credentials",
        "details": "...",
        "severity": [{"type": "CVSS_V3", "score": CRITICAL}],
        "affected": [affected(versions=["2.19.0", "2.19.1"])],
        "references": [{"type": "WEB", "url": "https://requests.example/"}],
        "database_specific": {"severity": "HIGH", "cwe_ids": ["CWE-522"]},
        **changes,
    }


def affected(
    name: str = "requests", ecosystem: str = "PyPI", *events: dict[str, str], **changes: Any
) -> dict[str, Any]:
    turns = list(events) or [{"introduced": "0"}, {"fixed": "2.20.0"}]
    kind = "SEMVER" if ecosystem == "npm" else "ECOSYSTEM"
    return {
        "package": {"ecosystem": ecosystem, "name": name, "purl": f"pkg:{ecosystem.lower()}/{name}"},
        "ranges": [{"type": kind, "events": turns}],
        **changes,
    }


def declares(path: str, content: str) -> Declared:
    found = Declared()
    read_declaration(path, content.encode("utf-8"), found)
    return found


def pinned(path: str, content: str) -> list[str]:
    return sorted(f"{each.ecosystem} {each.name} {each.version}" for each in declares(path, content).packages)


REQUIREMENTS = """\
# made by a tool
Django==4.2.1 ; python_version >= "3.8" \\
    --hash=sha256:00 \\
    --hash=sha256:11
requests[socks]===2.19.0  # old
-r more.txt
--index-url https://index.example/simple
--extra-index-url https://more.example/-e/simple
-e .
flask>=2
-e git+https://kim:s3cret@git.example/x.git#egg=x
"""
UV = """\
version = 1
[[package]]
name = "raos"
version = "1.0"
source = { editable = "." }
[[package]]
name = "anyio"
version = "4.0.0"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "patched"
version = "1.0"
source = { git = "https://git.example/patched" }
"""
POETRY = """\
[[package]]
name = "certifi"
version = "2023.5.7"
[[package]]
name = "inner"
version = "1.0"
[package.source]
type = "legacy"
url = "https://index.example/simple"
[[package]]
name = "here"
version = "1.0"
[package.source]
type = "directory"
url = "here"
"""
PYLOCK = """\
lock-version = "1.0"
created-by = "a tool"
[[packages]]
name = "attrs"
version = "25.1.0"
index = "https://pypi.org/simple"
[[packages]]
name = "mine"
directory = { path = "." }
[[packages]]
name = "from-git"
vcs = { type = "git", url = "https://git.example/x", commit-id = "0" }
"""
DOTNET = {
    "runtimeTarget": {"name": ".NETCoreApp,Version=v8.0"},
    "libraries": {
        "RaOS/9.4.1": {"type": "project"},
        "Newtonsoft.Json/13.0.1": {"type": "package", "sha512": "sha512-00"},
        "System.Text.Json/8.0.0-rc.7.1": {"type": "package"},
    },
}
NPM_3 = {
    "lockfileVersion": 3,
    "packages": {
        "": {"name": "web", "version": "1.0.0"},
        "packages/own": {"version": "1.0.0"},
        "node_modules/own": {"resolved": "packages/own", "link": True},
        "node_modules/lodash": {"version": "4.17.20"},
        "node_modules/a/node_modules/@b/c": {"version": "1.2.3-rc.1"},
        "node_modules/alias": {"name": "real", "version": "2.0.0"},
    },
}
NPM_1 = {
    "lockfileVersion": 1,
    "dependencies": {
        "lodash": {"version": "4.17.20", "dependencies": {"@b/c": {"version": "1.2.3"}}},
        "alias": {"version": "npm:@x/real@2.0.0"},
        "own": {"version": "file:../own"},
        "patched": {"version": "git+ssh://git@git.example/x.git#00"},
    },
}


@pytest.mark.parametrize(
    ("path", "content", "packages"),
    [
        ("a/requirements-dev.txt", REQUIREMENTS, ["PyPI django 4.2.1", "PyPI requests 2.19.0"]),
        ("requirements/base.txt", "\ufeffjinja2 == 3.1.2\r\n", ["PyPI jinja2 3.1.2"]),
        ("uv.lock", UV, ["PyPI anyio 4.0.0"]),
        ("poetry.lock", POETRY, ["PyPI certifi 2023.5.7", "PyPI inner 1.0"]),
        ("pylock.web.toml", PYLOCK, ["PyPI attrs 25.1.0"]),
        ("lib/PyYAML-6.0.dist-info/METADATA", "Name: PyYAML\nVersion: 6.0\n\nName: x\n", ["PyPI pyyaml 6.0"]),
        ("RaOS.deps.json", json.dumps(DOTNET), ["NuGet Newtonsoft.Json 13.0.1", "NuGet System.Text.Json 8.0.0-rc.7.1"]),
        ("package-lock.json", json.dumps(NPM_3), ["npm @b/c 1.2.3-rc.1", "npm lodash 4.17.20", "npm real 2.0.0"]),
        (".package-lock.json", json.dumps(NPM_1), ["npm @b/c 1.2.3", "npm @x/real 2.0.0", "npm lodash 4.17.20"]),
        ("docs/requirements.md", "Django==4.2.1", []),
    ],
)  # fmt: skip
def test_packages_are_read_from_what_declares_them(path: str, content: str, packages: list[str]) -> None:
    assert pinned(path, content) == packages


def test_what_names_no_version_is_said_so_unless_another_file_does() -> None:
    found = declares("requirements.txt", REQUIREMENTS)
    (loose,) = found.findings()
    assert (loose.severity, loose.rule, loose.path) == ("medium", "unpinned", "requirements.txt")
    assert "no exact version of flask, what comes from an address:" in loose.text
    assert "s3cret" not in loose.text
    read_declaration("x/flask-3.0.0.dist-info/METADATA", b"Name: Flask\nVersion: 3.0.0\n", found)
    assert "flask" not in next(found.findings()).text


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("a.deps.json", "{"),
        ("a.deps.json", "[" * 100_000),
        ("a.deps.json", '{"libraries": 8}'),
        ("package-lock.json", '{"packages": {"node_modules/x": 8}}'),
        ("uv.lock", "package = 8"),
        ("x.dist-info/METADATA", "Summary: nobody"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_warning_not_an_empty_one(path: str, content: str) -> None:
    found = declares(path, content)
    assert [(each.severity, each.rule, each.path) for each in found.findings()] == [("medium", "unreadable", path)]
    assert not found.packages


@pytest.mark.parametrize(
    ("ecosystem", "ordered"),
    [
        ("PyPI", ["1.0.dev1", "1.0a2", "1.0a10", "1.0rc1", "1.0", "1.0.post1", "1.1", "1.10", "1!0.1"]),
        ("npm", ["1.0.0-alpha", "1.0.0-alpha.2", "1.0.0-alpha.10", "1.0.0-beta", "1.0.0", "1.2.0", "1.10.0"]),
        ("NuGet", ["1.0.0-Alpha", "1.0.0-beta.2", "1.0.0-beta.11", "1.0", "1.0.0.1-rc", "1.0.0.1", "1.0.1", "1.10"]),
    ],
)
def test_versions_are_ordered_as_their_ecosystem_orders_them(ecosystem: Ecosystem, ordered: list[str]) -> None:
    versions = [parse_version(ecosystem, text) for text in ordered]
    for number, version in enumerate(versions[1:], 1):
        assert all(version > before for before in versions[:number]), ordered[number]


def test_what_is_no_version_is_told_apart() -> None:
    assert parse_version("NuGet", "1.0.0-RC") == parse_version("NuGet", "1.0-rc")
    for ecosystem in ("PyPI", "npm", "NuGet"):
        for text in ("", "latest", "1.x", "git+https://x", "9" * 200, None):
            assert not is_version(ecosystem, text), (ecosystem, text)


@pytest.mark.parametrize(
    ("events", "version", "vulnerable"),
    [
        ([{"introduced": "0"}, {"fixed": "2.0.0"}], "1.9.9", True),
        ([{"introduced": "0"}, {"fixed": "2.0.0"}], "2.0.0", False),
        ([{"introduced": "0"}, {"fixed": "2.0.0"}], "2.0.0-rc.1", True),
        ([{"fixed": "2.0.0"}, {"introduced": "1.0.0"}], "0.9.0", False),
        ([{"introduced": "1.0.0"}, {"last_affected": "1.4.0"}], "1.4.0", True),
        ([{"introduced": "1.0.0"}, {"last_affected": "1.4.0"}], "1.4.1", False),
        ([{"introduced": "1.0.0"}, {"fixed": "1.4.0"}, {"introduced": "2.0.0"}, {"fixed": "2.1.0"}], "1.9.0", False),
        ([{"introduced": "1.0.0"}, {"fixed": "1.4.0"}, {"introduced": "2.0.0"}, {"fixed": "2.1.0"}], "2.0.5", True),
        ([{"introduced": "1.0.0"}, {"fixed": "1.4.0"}, {"introduced": "1.4.0"}], "1.4.0", True),
        ([{"introduced": "0"}], "99.0.0", True),
        ([{"introduced": "0"}, {"limit": "2.0.0"}], "2.0.0", False),
        ([{"introduced": "0"}, {"limit": "2.0.0"}, {"limit": "3.0.0"}], "2.5.0", True),
        ([{"introduced": "0"}, {"limit": "*"}], "2.5.0", True),
        ([], "1.0.0", False),
    ],
)
def test_a_range_is_evaluated_as_the_schema_says(events: list[dict[str, str]], version: str, vulnerable: bool) -> None:
    content = record(affected=[{**affected("x", "npm"), "ranges": [{"type": "SEMVER", "events": events}]}])
    assert Advisory.model_validate(content).affects(Package("npm", "x", version)) is vulnerable


def test_an_advisory_is_about_its_own_package_and_not_when_withdrawn() -> None:
    advisory = Advisory.model_validate(record())
    assert advisory.affects(Package("PyPI", "Requests", "2.19.0"))
    assert not advisory.affects(Package("PyPI", "requests-oauthlib", "2.19.0"))
    assert not advisory.affects(Package("npm", "requests", "2.19.0"))
    assert not Advisory.model_validate(record(withdrawn="2026-01-01T00:00:00Z")).affects(REQUESTS)
    listed = record(affected=[{**affected(), "ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}])
    assert not Advisory.model_validate(listed).affects(REQUESTS)
    listed["affected"][0]["versions"] = ["2.19.0"]
    assert Advisory.model_validate(listed).affects(REQUESTS)


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({}, "high", "CVSS 9.8"),
        ({"severity": [{"type": "CVSS_V3", "score": MODEST}]}, "medium", "CVSS 2.6"),
        ({"severity": [{"type": "CVSS_V3", "score": "nonsense"}]}, "high", "high"),
        ({"severity": None, "database_specific": {"severity": "MODERATE"}}, "medium", "moderate"),
        ({"severity": [], "database_specific": None}, "high", ""),
        ({"id": "MAL-2026-1", "severity": []}, "high", "malicious"),
    ],
)
def test_how_bad_it_is_is_said_by_cvss_or_the_database(changes: dict[str, Any], severity: str, words: str) -> None:
    found = rating(Advisory.model_validate(record(**changes)), REQUESTS)
    assert (found.severity, found.words) == (severity, words)


def test_the_records_of_one_vulnerability_are_one_finding() -> None:
    twin = record("PYSEC-2018-28", severity=[], database_specific=None, summary=None)
    (found,) = findings(
        {REQUESTS: [Advisory.model_validate(record()), Advisory.model_validate(twin)]}, {REQUESTS: "requirements.txt"}
    )
    assert (found.severity, found.rule, found.path) == ("high", "vulnerable", "requests")
    assert found.text == (
        "requests 2.19.0 of requirements.txt is vulnerable: GHSA-aaaa-bbbb-cccc (CVE-2018-18074, CVSS 9.8): "
        "Insufficiently protected credentials; fixed in 2.20.0"
    )
    other = record("PYSEC-2024-1", aliases=[], severity=[], database_specific=None)
    both = list(findings({REQUESTS: [Advisory.model_validate(record()), Advisory.model_validate(other)]}, {}))
    assert len(both) == 2
    assert "not rated by anybody" in both[1].text


def test_what_is_for_development_only_is_a_warning_unless_it_is_malicious() -> None:
    found = declares(
        "package-lock.json", json.dumps({"packages": {"node_modules/x": {"version": "1.0.0", "dev": True}}})
    )
    (package,) = found.development
    for one, severity in (("GHSA-1", "medium"), ("MAL-2026-1", "high")):
        advisory = Advisory.model_validate(record(one, affected=[affected("x", "npm")]))
        (finding,) = findings({package: [advisory]}, found.packages, found.development)
        assert finding.severity == severity
    read_declaration("node_modules/x/package.json", b'{"name": "x", "version": "1.0.0"}', found)
    assert found.development == set()


# The server


def told(mood: str = "", records: list[dict[str, Any]] | None = None, seconds: float = 5) -> dict[Package, list[str]]:
    with osv_server(records if records is not None else [record()], mood) as osv:
        found = ask_osv(osv.url, [REQUESTS, Package("PyPI", "flask", "3.0.0")], seconds)
    return {package: [each.id for each in advisories] for package, advisories in found.items()}


def test_the_server_is_asked_and_its_records_read() -> None:
    assert told() == {REQUESTS: ["GHSA-aaaa-bbbb-cccc"]}
    assert told(records=[]) == {}
    assert told(records=[record(withdrawn="2026-01-01T00:00:00Z")]) == {REQUESTS: []}


def test_what_passes_is_tried_again_and_pages_are_read_to_the_end() -> None:
    assert told("busy-once") == {REQUESTS: ["GHSA-aaaa-bbbb-cccc"]}
    assert told("pages", [record("A-1"), record("A-2"), record("A-3")]) == {REQUESTS: ["A-1", "A-2", "A-3"]}


def test_a_vulnerability_whose_record_is_gone_counts_as_unrated() -> None:
    with osv_server([record()], "forgetful") as osv:
        found = ask_osv(osv.url, [REQUESTS])
    assert [each.severity for each in findings(found, {})] == ["high"]


@pytest.mark.parametrize(
    ("mood", "why"),
    [
        ("busy", "answers 503 at /v1/querybatch"),
        ("hang", r"gave no whole answer within 0\.5 s"),
        ("drip", r"gave no whole answer within 0\.5 s"),
        ("huge", "answers more than 4194304 bytes"),
        ("html", "not as OSV does"),
        ("short", "answered 1 of 2 questions"),
        ("redirect", "answers 302"),
        ("endless", "more than 20 pages"),
    ],
)
def test_a_server_that_does_not_do_its_part_is_named_with_the_reason(mood: str, why: str) -> None:
    seconds = 0.5 if mood in ("hang", "drip") else 10
    with osv_server([record()], mood) as osv, pytest.raises(AdvisoriesUnknownError, match=f"{osv.url} .*{why}"):
        ask_osv(osv.url, [REQUESTS, Package("PyPI", "flask", "3.0.0")], seconds)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(AdvisoriesUnknownError, match=r"http://127\.0\.0\.1:9 does not answer: .*connect") as caught:
        ask_osv("http://kim:s3cret@127.0.0.1:9", [REQUESTS])
    assert "s3cret" not in str(caught.value)
    assert shown("https://kim:s3cret@osv.example/mirror/") == "https://osv.example/mirror"
    with pytest.raises(AdvisoriesUnknownError, match="cannot be asked"):
        ask_osv("osv", [REQUESTS])


# The copy


def zipped(path: Path, *records: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in records:
            archive.writestr(f"{each['id']}.json", json.dumps(each, ensure_ascii=True))
    return path


def test_a_copy_is_read_as_zip_and_as_directory(tmp_path: Path) -> None:
    other = record("GHSA-other", modified="2026-11-15T00:00:00Z", affected=[affected("flask")])
    copy = read_copy(str(zipped(tmp_path / "osv" / "PyPI" / "all.zip", record(), other)), [REQUESTS])
    assert [each.id for each in copy.found[REQUESTS]] == ["GHSA-aaaa-bbbb-cccc"]
    assert (copy.records, copy.modified) == (2, datetime(2026, 11, 15, tzinfo=UTC))
    (tmp_path / "osv" / "one.json").write_text(json.dumps(record("N-1", affected=[affected("X.Y", "NuGet")])))
    mixed = read_copy(str(tmp_path / "osv"), [REQUESTS, Package("NuGet", "x.y", "1.0")])
    assert sorted(each.id for found in mixed.found.values() for each in found) == ["GHSA-aaaa-bbbb-cccc", "N-1"]


def test_a_copy_that_cannot_tell_is_named_with_the_reason(tmp_path: Path) -> None:
    def why(path: Path | str, package: Package = REQUESTS) -> str:
        with pytest.raises(AdvisoriesUnknownError) as caught:
            read_copy(str(path), [package])
        return str(caught.value)

    good = zipped(tmp_path / "all.zip", record())
    assert why("") == "the policy names no file: set osv_file to a copy of OSV's database"
    assert why(tmp_path / "none.zip").endswith("none.zip cannot be read: No such file or directory")
    assert why(good, Package("npm", "x", "1.0.0")).endswith("all.zip holds no advisory for npm")
    (tmp_path / "half.zip").write_bytes(good.read_bytes()[:200])
    assert "cannot be read: File is not a zip file" in why(tmp_path / "half.zip")
    assert "is no OSV record" in why(zipped(tmp_path / "odd.zip", record(affected=[affected(), 8])))
    assert "cannot be matched" in why(
        zipped(tmp_path / "strange.zip", record(affected=[affected("requests", "PyPI", {"introduced": "what?"})]))
    )
    with pytest.raises(AdvisoriesUnknownError, match="could not be read within 0 s"):
        read_copy(str(good), [REQUESTS], 0)


# What the policy says


def asked(declared: Declared, **policy: Any) -> tuple[list[tuple[str, str]], str]:
    result = look_up(declared, Policy(**policy), 60, NOW)
    return [(each.severity, each.text) for each in result.findings], result.unknown


def test_the_policy_says_who_is_asked(tmp_path: Path) -> None:
    declared = Declared({REQUESTS: "requirements.txt"})
    with osv_server([record()]) as osv:
        assert [severity for severity, _ in asked(declared, osv_url=osv.url)[0]] == ["high"]
        before = len(osv.asked)
        assert asked(Declared(), osv_url=osv.url) == ([], "")
        assert len(osv.asked) == before
    (off,), unknown = asked(declared, advisories="off")
    assert (off[0], unknown) == ("low", "")
    assert "were not looked up: the verification policy says so" in off[1]
    copy = zipped(tmp_path / "all.zip", record())
    assert [severity for severity, _ in asked(declared, advisories="file", osv_file=str(copy))[0]] == ["high"]
    old = zipped(tmp_path / "old.zip", record(modified=(NOW - timedelta(days=31)).isoformat()))
    (stale, _), _ = asked(declared, advisories="file", osv_file=str(old))
    assert stale[0] == "medium"
    assert "end on 2026-10-20" in stale[1]


def test_nothing_is_known_where_nobody_answers() -> None:
    (found,), unknown = asked(Declared({REQUESTS: ""}), osv_url="http://127.0.0.1:9")
    assert found == ("low", unknown)
    assert unknown.startswith("known vulnerabilities of 1 package could not be looked up: http://127.0.0.1:9 ")
