"""The security check against a real node and program: advisories, modes on disk, TLS, and what is shown."""

from __future__ import annotations

import shutil
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ashat.client.node import NodeClient
from ashat.raos_toml.load import load_raos_toml, raos_toml_of
from ashat.verification.policy import Policy
from tasks.checks import CheckContext, CheckResult, run_check
from tasks.checks.kit.http import Answer
from tasks.checks.scan.exposure import shown_by_the_program
from tasks.checks.scan.headers import missing_headers, weak_cookies, weak_headers
from tasks.checks.scan.lockfiles import declared_packages
from tasks.checks.scan.tls import inspect_tls
from tasks.checks.security import SecurityCheck
from tasks.selftest.faults.certificates import make_identity
from tasks.selftest.faults.security import AWS_KEY
from tasks.selftest.faults.tls_proxy import tls_in_front_of, trusting
from tests.checks.test_osv import record
from tests.checks.test_sample import running
from tests.support.fakes.bad_network import answering
from tests.support.fakes.certificates import make_certificate
from tests.support.fakes.osv_server import osv_server
from tests.support.processes.node import EXAMPLE, NodeProcess, example_app, push, switch

NOW = datetime.now(UTC)
SOON = timedelta(days=14)
TOML = b'[raos]\nname = "RaOS"\nversion = "1"\n'


@dataclass
class Public:
    """A node that runs the sample; `check` tells of the release in `tree` what the check says of it."""

    node: NodeProcess
    client: NodeClient
    running: str

    def context(self, bundle: str = "", **changes: Any) -> CheckContext:
        manifest = self.client.manifest(bundle or self.running)
        url = self.client.state().app.url
        assert url is not None
        context = CheckContext(
            public=self.client,
            app_url=url,
            bundle=manifest.digest,
            manifest=manifest,
            raos=raos_toml_of(manifest, lambda path: self.client.file_bytes(manifest, path)),
            source=lambda path: self.client.file_bytes(manifest, path),
            time_limit=30,
        )
        return replace(context, **changes)

    def check(self, tree: Path | None = None, **changes: Any) -> CheckResult:
        return run_check(SecurityCheck(), self.context(push(self.client, tree) if tree else "", **changes))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Public]:
    directory = tmp_path_factory.mktemp("security")
    tls = make_certificate(directory / "tls")
    with NodeProcess(directory / "staging", app=example_app(), tls=tls) as node, node.client() as client:
        bundle = push(client, EXAMPLE)
        assert switch(client, bundle, expected=None).status == "succeeded", node.log()
        yield Public(node, client, bundle)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    shutil.copytree(EXAMPLE, tmp_path / "release", ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    (tmp_path / "release" / "requirements.txt").write_text("requests==2.19.0\n", encoding="utf-8")
    return tmp_path / "release"


def grave(result: CheckResult) -> list[tuple[str, str]]:
    return [(each.severity, each.rule) for each in result.findings if each.severity != "low"]


# The whole


def test_the_sample_passes_and_nobody_outside_is_asked(public: Public) -> None:
    with osv_server() as osv:
        result = public.check(policy=Policy(osv_url=osv.url))
    assert (result.outcome, grave(result), osv.asked) == ("pass", [], [])
    assert (result.version, result.figures["packages"], result.inputs["advisories"]) == ("5", 0, osv.url)
    told = next(each.text for each in result.findings if "speaks TLSv1.3" in each.text)
    assert "it refuses SSL 3.0, TLS 1.0 and TLS 1.1" in told


def test_a_known_vulnerability_fails_and_its_absence_passes(public: Public, release: Path) -> None:
    with osv_server([record()]) as osv:
        bad = public.check(release, policy=Policy(osv_url=osv.url))
        (release / "requirements.txt").write_text("requests==2.31.0\n", encoding="utf-8")
        good = public.check(release, policy=Policy(osv_url=osv.url))
    assert (bad.outcome, grave(bad)) == ("fail", [("high", "vulnerable")])
    assert bad.seen.startswith("requests 2.19.0 of requirements.txt is vulnerable: GHSA-aaaa-bbbb-cccc (CVE-2018-18074")
    assert (good.outcome, good.figures["packages"]) == ("pass", 1)
    assert "; 1 package looked up; " in good.seen


def test_one_that_is_allowed_by_its_package_passes(public: Public, release: Path) -> None:
    with open(release / "raos.toml", "a", encoding="utf-8") as file:
        file.write('\n[[security.allow]]\nrule = "vulnerable"\npath = "requests"\nreason = "no proxy is ever used"\n')
        file.write(f"until = {NOW + timedelta(days=30):%Y-%m-%d}\n")
    with osv_server([record()]) as osv:
        assert public.check(release, policy=Policy(osv_url=osv.url)).outcome == "pass"


def test_out_of_reach_is_inconclusive_and_never_a_pass(public: Public, release: Path) -> None:
    nobody = Policy(osv_url="http://127.0.0.1:9")
    result = public.check(release, policy=nobody)
    assert result.outcome == "inconclusive"
    assert result.seen.startswith("known vulnerabilities of 1 package could not be looked up: http://127.0.0.1:9 does")
    with osv_server([record()], "html") as osv:
        result = public.check(release, policy=Policy(osv_url=osv.url))
    assert result.outcome == "inconclusive"
    assert f"{osv.url} answers /v1/querybatch not as OSV does" in result.seen
    result = public.check(release, policy=Policy(advisories="file", osv_file="/nowhere/all.zip"))
    assert (result.outcome, "/nowhere/all.zip cannot be read" in result.seen) == ("inconclusive", True)
    (release / "key.txt").write_text(f"{AWS_KEY}\n", encoding="utf-8")
    result = public.check(release, policy=nobody)
    assert (result.outcome, result.seen.startswith("key.txt, line 1: AWS Access Key")) == ("fail", True)
    assert any("could not be looked up" in each.text for each in result.findings)


def test_turned_off_is_said(public: Public, release: Path) -> None:
    result = public.check(release, policy=Policy(advisories="off", osv_url="http://127.0.0.1:9"))
    assert (result.outcome, result.inputs["advisories"]) == ("pass", "off")
    assert any("were not looked up" in each.text for each in result.findings)
    assert "looked up" not in result.seen


def test_an_included_file_is_read_whatever_its_name(public: Public, release: Path) -> None:
    (release / "requirements.txt").write_text("-r deps/pins.txt\n-r gone.txt\n", encoding="utf-8")
    (release / "deps").mkdir()
    (release / "deps" / "pins.txt").write_text("-r ../deps/pins.txt\nflask==3.0.0\n", encoding="utf-8")
    found = declared_packages(public.context(push(public.client, release)))
    assert {f"{package.name} of {path}" for package, path in found.packages.items()} == {"flask of deps/pins.txt"}
    assert found.unreadable == {"requirements.txt": "it includes gone.txt, which is not in the bundle"}


# On the server's disk


@pytest.mark.parametrize(("mode", "rule"), [(0o4755, "setuid"), (0o2755, "setuid"), (0o646, "world-writable")])
def test_a_loose_mode_on_disk_fails(public: Public, mode: int, rule: str) -> None:
    file = (public.node.data / "current").resolve() / "raos.py"
    before = file.stat().st_mode
    file.chmod(mode)
    try:
        result = public.check()
    finally:
        file.chmod(before)
    assert (result.outcome, grave(result)) == ("fail", [("high", rule)])
    assert result.seen.startswith(f"raos.py is {mode:04o} on the server")


# TLS


def looked(public: Public, tmp_path: Path, host: str = "127.0.0.1", **options: Any) -> list[tuple[str, str, str]]:
    """What is found of a server with a certificate made so (`oldest`, `newest`, `trusted` aside)."""
    served = {name: options.pop(name) for name in ("oldest", "newest") if name in options}
    trusted = options.pop("trusted", True)
    identity = make_identity(tmp_path / "tls", **options)
    url = public.client.state().app.url
    assert url is not None
    with tls_in_front_of(url, identity, host=host, **served) as secure:
        trust = trusting(identity.authority) if trusted else None
        found = list(inspect_tls(secure, trust, NOW, SOON))
        port = secure.rpartition(":")[2]
    return [(each.severity, each.rule, each.text.replace(port, "PORT")) for each in found if each.severity != "low"]


def test_good_tls_has_nothing_wrong(public: Public, tmp_path: Path) -> None:
    assert looked(public, tmp_path) == []
    assert looked(public, tmp_path, "localhost", newest=ssl.TLSVersion.TLSv1_2) == []


def test_a_bad_certificate_is_named_with_its_reason(public: Public, tmp_path: Path) -> None:
    day = timedelta(days=1)
    where = "the certificate of 127.0.0.1:PORT"
    gone = f"{where} expired on {NOW - day:%Y-%m-%d}: renew it"
    assert looked(public, tmp_path, ends=NOW - day) == [("high", "certificate", gone)]
    early = f"{where} is valid only from {NOW + day:%Y-%m-%d} on"
    assert looked(public, tmp_path, begins=NOW + day) == [("high", "certificate", early)]
    other = f"{where} is for a.example, b.example, ::1 and 1 more, not for 127.0.0.1"
    names = ["a.example", "b.example", "::1", "c.example"]
    assert looked(public, tmp_path, names=names) == [("high", "certificate", other)]
    ((severity, rule, text),) = looked(public, tmp_path, trusted=False)
    assert (severity, rule) == ("high", "certificate")
    assert text.startswith(f"{where} is not trusted (")
    assert text.endswith("configure its authority as the server's CA")
    soon = f"{where} expires on {NOW + 5 * day:%Y-%m-%d}, in 4 days: renew it"
    found = looked(public, tmp_path, ends=NOW + 5 * day - timedelta(seconds=30))
    assert found == [("medium", "certificate-expiry", soon)]
    assert looked(public, tmp_path, ends=NOW + 15 * day) == []


def test_the_policy_says_how_soon_a_certificate_is_pointed_out(public: Public, tmp_path: Path) -> None:
    identity = make_identity(tmp_path / "tls", ends=NOW + timedelta(days=40))
    url = public.client.state().app.url
    assert url is not None
    with tls_in_front_of(url, identity) as secure:
        given: dict[str, Any] = {"app_url": secure, "tls": trusting(identity.authority)}
        assert grave(public.check(policy=Policy(advisories="off", certificate_days=39), **given)) == []
        late = public.check(policy=Policy(advisories="off", certificate_days=40), **given)
    assert grave(late) == [("medium", "certificate-expiry")]


def test_an_old_protocol_is_named(public: Public, tmp_path: Path) -> None:
    taken = looked(public, tmp_path, oldest=ssl.TLSVersion.TLSv1)
    assert [(severity, rule) for severity, rule, _ in taken] == [("medium", "tls-protocol")]
    assert "still takes TLS 1.0 and TLS 1.1" in taken[0][2]
    only = looked(public, tmp_path, oldest=ssl.TLSVersion.TLSv1, newest=ssl.TLSVersion.TLSv1_1)
    assert [(severity, rule) for severity, rule, _ in only] == [("high", "tls-protocol")]
    assert "speaks nothing newer than TLS 1.1" in only[0][2]


def test_what_speaks_no_tls_is_said_so(public: Public) -> None:
    url = public.client.state().app.url
    assert url is not None
    for address in (url.replace("http:", "https:"), "https://127.0.0.1:9"):
        (found,) = inspect_tls(address, None, NOW, SOON)
        assert (found.severity, "makes no TLS connection" in found.text) == ("high", True)
    assert list(inspect_tls("http://[::1]:8080", None, NOW, SOON)) == []
    (found,) = inspect_tls("http://raos.example:8080", None, NOW, SOON)
    assert (found.severity, found.rule, found.path) == ("medium", "plain-http", "raos.example:8080")


def test_behind_an_expired_certificate_the_program_is_looked_at_all_the_same(public: Public, tmp_path: Path) -> None:
    identity = make_identity(tmp_path / "tls", ends=NOW - timedelta(days=1))
    context = public.context()
    with tls_in_front_of(context.app_url, identity) as url:
        result = public.check(app_url=url, tls=trusting(identity.authority))
    assert (result.outcome, grave(result)) == ("fail", [("high", "certificate")])


# What answers say


def answers(**headers: str) -> dict[str, Answer]:
    given = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return {"/": Answer(200, httpx.Headers(given), b"", 1)}


@pytest.mark.parametrize(
    ("policy", "weak"),
    [
        ("default-src 'self'; frame-ancestors 'none'", ""),
        ("default-src *; script-src 'self'", ""),
        ("script-src 'nonce-r4nd0m' 'unsafe-inline' 'strict-dynamic' https:", ""),
        ("default-src 'self' 'unsafe-inline'", "'unsafe-inline'"),
        ("DEFAULT-SRC *", "from anywhere (*)"),
        ("script-src 'self' https:; object-src 'none'", "from anywhere (https:)"),
        ("frame-ancestors 'none'", "restricts no scripts"),
        ("upgrade-insecure-requests, default-src 'self'", ""),
        ("sandbox", ""),
    ],
)
def test_a_policy_that_restricts_no_scripts_is_a_warning(policy: str, weak: str) -> None:
    found = list(weak_headers(answers(Content_Security_Policy=policy), hsts=False))
    assert [(each.severity, each.path) for each in found] == [("medium", "Content-Security-Policy")] * bool(weak)
    assert all(weak in each.text for each in found)


def test_headers_that_do_nothing_are_told() -> None:
    found = list(
        weak_headers(answers(X_Content_Type_Options="sniff", Strict_Transport_Security="max-age=60"), hsts=True)
    )
    assert [(each.severity, each.path) for each in found] == [
        ("high", "X-Content-Type-Options"),
        ("medium", "Strict-Transport-Security"),
    ]
    assert not list(weak_headers(answers(Strict_Transport_Security="max-age=31536000; preload"), hsts=True))
    assert [each.path for each in missing_headers(answers(Referrer_Policy="no-referrer"), ["X-Mine"], hsts=True)] == [
        "X-Mine",
        "X-Content-Type-Options",
        "Content-Security-Policy",
        "Strict-Transport-Security",
    ]


@pytest.mark.parametrize(
    ("cookie", "https", "told"),
    [
        ("session=1; Path=/; Secure; HttpOnly; SameSite=Lax", True, []),
        ("session=1; HttpOnly; SameSite=Strict", False, []),
        ("session=1; HttpOnly; SameSite=Strict", True, [("high", "Secure")]),
        ("PHPSESSID=1; secure; samesite=lax", True, [("high", "HttpOnly")]),
        ("basket=7f3c91; Secure; SameSite=Lax", True, [("medium", "HttpOnly")]),
        ("theme=dark; Secure; SameSite=Lax", True, []),
        ("csrftoken=1; Secure; SameSite=Lax", True, []),
        ("session=1; Secure; HttpOnly", True, [("medium", "SameSite")]),
        ("session=1; HttpOnly; SameSite=None", False, [("medium", "without Secure")]),
        ("session=; Max-Age=0", True, []),
    ],
)
def test_a_cookie_is_told_what_it_lacks(cookie: str, https: bool, told: list[tuple[str, str]]) -> None:
    found = list(weak_cookies(answers(Set_Cookie=cookie), https=https))
    assert [each.severity for each in found] == [severity for severity, _ in told]
    assert all(word in each.text and each.rule == "cookie" for each, (_, word) in zip(found, told, strict=True))


def exposed(public: Public, url: str) -> list[tuple[str, str]]:
    context = public.context(app_url=url, raos=load_raos_toml(TOML), deadline=time.monotonic() + 30)
    found = shown_by_the_program(context)
    return [(each.rule, each.path) for each in found if each.rule not in ("header", "")]


@pytest.mark.parametrize(("host", "asked"), [("localhost", True), ("127.0.0.1", False)])
def test_strict_transport_is_asked_of_names_as_browsers_heed_no_addresses(
    public: Public, tmp_path: Path, host: str, asked: bool
) -> None:
    identity = make_identity(tmp_path / "tls")
    context = public.context()
    with tls_in_front_of(context.app_url, identity, host=host) as url:
        result = public.check(app_url=url, tls=trusting(identity.authority))
    assert result.outcome == ("warn" if asked else "pass")
    assert ("Strict-Transport-Security is missing" in result.seen) is asked


def test_one_page_for_every_path_exposes_nothing(public: Public) -> None:
    page = b"<title>RaOS</title><script>\n  mode = 1\n</script>\n[raos]\nservices:\n"
    with answering(200, page) as url:
        assert exposed(public, url) == []


def test_what_only_a_file_holds_is_exposed(public: Public) -> None:
    settings = b'{"Logging": {"LogLevel": {}}, "ConnectionStrings": {"RaOS": "..."}}'
    files = {"/appsettings.json": settings, "/.htpasswd": b"kim:$2y$05$abc\n", "/.env": b"KEY=1\n"}
    with answering(200, b"<title>RaOS</title>", bodies=files) as url:
        assert exposed(public, url) == [
            ("exposed", "/.env"),
            ("exposed", "/appsettings.json"),
            ("exposed", "/.htpasswd"),
        ]
    with answering(200, b"<title>Index of /</title>") as url:
        assert ("listing", "/uploads/") in exposed(public, url)


def test_a_program_that_hangs_is_not_asked_for_everything(
    public: Public, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.checks.scan.exposure.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("tasks.checks.scan.exposure.ANSWER_SECONDS", 0.3)
    with running(tmp_path / "data", faults="hang=/.git/config,exposed") as program:
        found = exposed(public, f"http://127.0.0.1:{program.port}")
    assert found == [("unanswered", "/.git/config")]
