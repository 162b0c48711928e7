"""What the answers of a running program show to strangers: the exposure part of the security check on small servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import unquote

import pytest

from ashat.raos_toml.load import load_raos_toml
from scripts.dependencies import ROOT
from tasks.checks.scan.behaviour import OPEN_PATHS, PATHS_LIMIT, STRANGER
from tasks.checks.scan.exposed_paths import EXPOSED, LISTED, LISTING, METRICS, TOOLBAR
from tasks.checks.scan.exposure import ABSENT, PARENTS_LIMIT, PREFIXES_LIMIT, shown_by_the_program
from tests.checks.test_behaviour import TRACES, Behaviour, found, serving, well, when
from tests.corpus.case import context_of, letters

DOCUMENT = (ROOT / "docs/checks.md").read_text("utf-8")
DECLARED = """
[raos]
name = "a"
version = "1"
[health]
path = "/health"
expect = "status"
[modules]
none = "nothing of that kind"
[[endpoint]]
name = "things"
path = "/api/v1/things"
[[endpoint]]
name = "order"
method = "POST"
path = "/api/v1/orders"
body = { item = "a" }
"""
WITH_METRICS = DECLARED + '[[endpoint]]\nname = "metrics"\npath = "/metrics"\n'
GUARDED = {
    "Content-Type": "text/html; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'",
    "Referrer-Policy": "same-origin",
}
# The start of what each of the paths answers where it is served, as its program or format has it.
ENV, SQLITE = "# of the shop\nDB_PASSWORD=x1\n", "SQLite format 3\0\x10"
KEY, DUMP = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "-- MySQL dump 10.13\n"
PASSWD = "root:x:0:0:root:/root:/bin/bash\n"
SHOWN = {
    "/.git/config": "[core]\n\tbare = false\n",
    "/.git/HEAD": "ref: refs/heads/main\n",
    "/.git/index": "DIRC\0\0\0\2",
    "/.env": ENV,
    "/.env.production": ENV,
    "/.env.local": ENV,
    "/.env.bak": "export " + ENV[14:],
    "/raos.toml": DECLARED,
    "/appsettings.json": '{"ConnectionStrings": {"Main": "Server=db"}}',
    "/web.config": '<?xml version="1.0"?><configuration>',
    "/docker-compose.yml": "services:\n  shop:\n",
    "/.htpasswd": "admin:$apr1$abc$def\n",
    "/.DS_Store": "\0\0\0\1Bud1",
    "/server-status": "<title>Apache Status</title>",
    "/phpinfo.php": "<title>PHP 8.3.1 - phpinfo()</title>",
    "/actuator": '{"_links":{"self":{"href":"x"},"env":{"href":"x"}}}',
    "/actuator/env": '{"activeProfiles":[],"propertySources":[{}]}',
    "/actuator/heapdump": "JAVA PROFILE 1.0.2\0",
    "/actuator/configprops": '{"contexts":{"application":{"beans":{}}}}',
    "/debug/pprof/": "<html><head><title>/debug/pprof/</title>",
    "/debug/vars": '{"cmdline":["/srv/a"],"memstats":{"Alloc":1}}',
    "/.npmrc": "//registry.npmjs.org/:_authToken=x\n",
    "/.aws/credentials": "[default]\naws_secret_access_key = x\n",
    "/id_rsa": KEY,
    "/id_ed25519": KEY,
    "/.ssh/id_rsa": KEY,
    "/server.key": "-----BEGIN PRIVATE KEY-----\nMIIE",
    "/backup.sql": DUMP,
    "/dump.sql": DUMP,
    "/database.sql": "--\n-- PostgreSQL database dump\n--\n",
    "/console": "<title>Console // Werkzeug Debugger</title>",
    "/_profiler/": "<title>Symfony Profiler</title>",
    "/telescope": "<title>Telescope - Shop</title>",
    "/horizon": "<title>Horizon - Shop</title>",
    "/rails/info/properties": "<td>Rails version</td>",
    "/rails/info/routes": "<th>Controller#Action</th>",
    "/rails/mailers": "<title>Mailer Previews</title>",
    "/h2-console/": "<title>H2 Console</title>",
    "/adminer.php": "<title>Login - Adminer</title>",
    "/phpmyadmin/": "<title>phpMyAdmin</title>",
    "/elmah.axd": "<title>Error log for Shop</title><h1>Error Log for Shop</h1>",
    "/trace.axd": "<h1>Application Trace</h1>",
    "/.svn/entries": "12\n",
    "/.svn/wc.db": SQLITE,
    "/.hg/requires": "dotencode\nfncache\nrevlogv1\nstore\n",
    "/.bash_history": "ls -la\ncd /srv\n",
    "/package.json": '{"name":"a","dependencies":{"express":"1"}}',
    "/composer.json": '{"require":{"php":">=8"}}',
    "/composer.lock": '{"_readme":["This file locks"],"packages":[]}',
    "/requirements.txt": "flask==1.0\n",
    "/Dockerfile": "FROM python:3.12\nRUN x\n",
    "/settings.py": "import os\nSECRET_KEY = 'x'\n",
    "/wp-config.php.bak": "<?php define('DB_PASSWORD', 'x');",
    "/config.php~": "<?php $p = 'x';",
    "/db.sqlite3": SQLITE,
    "/database.sqlite": SQLITE,
    "/backup.zip": "PK\3\4\x14",
    "/backup.tar.gz": "\x1f\ufffd\x08",
    "/..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd": PASSWD,
    "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd": PASSWD,
    "/jolokia/list": '{"value":{"java.lang":{}}}',
    "/jmx-console/": "<title>JBoss JMX Management Console</title>",
    "/json/list": '[{"webSocketDebuggerUrl":"ws://127.0.0.1:9229/1"}]',
    "/graphiql": "<title>GraphiQL</title>",
    "/graphql": "<title>GraphQL Playground</title>",
    "/sidekiq": "<title>[production] Sidekiq</title>",
    "/flower": "<title>Flower</title>",
    "/nginx_status": "Active connections: 3 \n",
    "/status": "pool:                 www\nprocess manager:      dynamic\n",
    "/@vite/client": 'import "/@vite/env";',
    "/webpack-dev-server": "<h1>Assets Report:</h1>",
}
# Pages that a shop may well have at some of these paths.
PEOPLES = {
    "/status": "all is well",
    "/console": "<title>The console of our shop</title>",
    "/flower": "<title>Flower shop</title>",
    "/horizon": "<title>Horizon Travel</title>",
    "/telescope": "<title>Every Telescope that we sell</title>",
    "/graphql": '{"errors":[{"message":"Must provide query string."}]}',
    "/actuator": '{"_links":{"self":{"href":"x"},"health":{"href":"x"}}}',
    "/package.json": '{"parcel":"1","weight":"2 kg"}',
    "/requirements.txt": "You need a table, and room around it.",
    "/backup.zip": "<h1>There is no backup here</h1>",
    "/.env": "<h1>Not here</h1>",
    "/metrics": "<title>Metrics of our gardens</title>",
    "/files/": "<title>Index of our essays</title>",
    "/media/": "<title>Directory listing for beginners</title>",
}
LISTINGS = {
    "/": "<title>Index of /</title>",
    "/Modules/": "<title>Directory listing for /Modules/</title>",
    "/static/": "<title>listing directory /static/</title>",
    "/uploads/": "<title>Files within uploads/</title>",
    "/media/": "<title>Directory Listing For [/media/]</title>",
    "/files/": "<title>localhost - /files/</title><pre><A HREF='/'>[To Parent Directory]</A>",
    "/assets/": "<title>Directory: /assets/</title>",
    "/backup/": '<title>backup/</title><div id="summary"><span class="meta-item"><b>3</b> files</span>',
    # Above the declared paths.
    "/api/": "<title>Index of /api/</title>",
    "/api/v1/": "<title>Index of /api/v1/</title>",
}
Found = set[tuple[str, str, str]]


def guarded(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
    """Answer as a program does that shows nothing to strangers."""
    if method not in ("GET", "HEAD", "POST", "OPTIONS"):
        return 405, GUARDED, "no such method"
    if path.split("?")[0] in ("/health", "/api/v1/things"):
        return 200, GUARDED, "<h1>A page</h1>"
    return 400 if method == "POST" else 404, GUARDED, "<h1>Nothing</h1>"


def pages(texts: Mapping[str, str]) -> Behaviour:
    def answer(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
        return (200, GUARDED, texts[path]) if method == "GET" and path in texts else guarded(method, path, headers)

    return answer


def setting(path: str, method: str = "GET", **headers: str) -> Behaviour:
    """Answer at `path` as usual, with more headers."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(asked: str, at: str, given: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
        status, usual, text = guarded(asked, at, given)
        return status, {**usual, **more} if (asked, at.split("?")[0]) == (method, path) else usual, text

    return answer


def shown(behaviour: Behaviour, declared: str = DECLARED) -> Found:
    """Rule, severity and path of all that is found, but for what is for the record."""
    with serving(behaviour) as url:
        context = replace(context_of({}), raos=load_raos_toml(declared.encode()), app_url=url)
        told = list(shown_by_the_program(context))
    return {(each.rule, each.severity, each.path) for each in told if each.severity != "low"}


def test_every_path_is_exposed_by_what_it_has() -> None:
    assert set(SHOWN) == set(EXPOSED)
    assert shown(pages(SHOWN)) == {("exposed", "high", path) for path in EXPOSED}


def test_the_documentation_names_what_is_asked_for() -> None:
    section = DOCUMENT.partition("### What strangers are shown\n")[2].partition("\n### ")[0]
    words = [
        f"declared paths, too ({PREFIXES_LIMIT} at most)",
        f"declared paths ({PARENTS_LIMIT} at most)",
        f"first {PATHS_LIMIT} declared",
        f"another site (the first {OPEN_PATHS})",
    ]

    assert [path for path in (*EXPOSED, *METRICS, *LISTED) if f"`{path}`" not in section] == []
    assert [each for each in words if each not in section] == []


def test_files_are_looked_for_below_declared_paths_too() -> None:
    assert shown(pages({"/api/.env": ENV, "/api/db.sqlite3": SQLITE})) == {
        ("exposed", "high", "/api/.env"),
        ("exposed", "high", "/api/db.sqlite3"),
    }


def test_every_listing_is_known_by_its_page() -> None:
    assert set(LISTINGS) > set(LISTED)
    assert shown(pages(LISTINGS)) == {("listing", "high", path) for path in LISTINGS}
    assert not any(LISTING.search(f"<title>{text}</title>") for text in ("Index of prices", "Directory: staff"))


def test_a_page_for_people_at_such_a_path_shows_nothing() -> None:
    assert shown(pages(PEOPLES)) == set()


@pytest.mark.parametrize(
    "text",
    ["<!doctype html><title>App</title><div id=root></div>", '{"ok":true}', "A=b\n" + DUMP + PASSWD],
    ids=["a single page", "JSON", "what is like files"],
)
def test_a_program_that_answers_every_path_alike_shows_no_file(text: str) -> None:
    assert (
        shown(lambda method, path, _: (200, GUARDED, text) if method == "GET" else guarded(method, path, {})) == set()
    )


def test_figures_for_those_who_run_it_are_declared_or_a_warning() -> None:
    figures = pages({"/metrics": "# HELP process_cpu_seconds_total Total\nprocess_cpu_seconds_total 1\n"})

    assert set(METRICS) == {"/metrics"}
    assert shown(figures) == {("exposed", "medium", "/metrics")}
    assert shown(figures, WITH_METRICS) == set()


TOOLBARS = {
    "Django": "<div id='djDebug' class='djdt-hidden'></div>",
    "Symfony": '<div id="sfwdt1" class="sf-toolbar sf-display-none"></div>',
    "Laravel": "<div class='phpdebugbar phpdebugbar-minimized'></div>",
    "Next.js": '<script id="__NEXT_DATA__">{"buildId":"development"}</script>',
    "Vite": '<script type="module" src="/@vite/client"></script>',
    "BrowserSync": '<script src="/browser-sync/browser-sync-client.js?v=3"></script>',
    "LiveReload": '<script src="//localhost/livereload.js?port=35729"></script>',
}


def test_a_tool_for_developers_in_a_page_fails() -> None:
    missed = [name for name, text in TOOLBARS.items() if not TOOLBAR.search(text)]

    assert missed == []
    assert shown(pages({"/api/v1/things": TOOLBARS["Django"]})) == {("exposed", "high", "/api/v1/things")}
    assert not TOOLBAR.search("<p>We sell the class 'sf-toolbar' and /@vite/client, in development</p>")


COOKIE = "JSESSIONID=7f3c91; Path=/"
SAFE = "session=7f3c91; Path=/; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (setting(ABSENT, Set_Cookie=COOKIE), {("cookie", "high", "JSESSIONID"), ("cookie", "medium", "JSESSIONID")}),
        (
            setting("/api/v1/orders", "POST", Set_Cookie="basket=7f3c91; HttpOnly"),
            {("cookie", "medium", "basket")},
        ),
        (setting(ABSENT, Set_Cookie=SAFE), set()),
        (setting(ABSENT, Set_Cookie="theme=dark; Path=/; SameSite=Lax"), set()),
        (setting("/api/v1/things", Set_Cookie="lang=en-GB; Path=/"), set()),
    ],
    ids=["on a missing page", "after a POST", "safe", "a choice on a missing page", "a choice"],
)
def test_cookies_of_every_answer_are_looked_at(behaviour: Behaviour, told: Found) -> None:
    assert shown(behaviour) == told


def test_a_cookie_of_the_pages_hides_no_other() -> None:
    def answer(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
        status, usual, text = guarded(method, path, headers)
        lines = {"Set-Cookie": SAFE, **({"set-cookie": "basket=7f3c91; HttpOnly"} if path == ABSENT else {})}
        return status, {**usual, **lines}, text

    assert shown(answer) == {("cookie", "medium", "basket")}


def test_a_credential_in_a_header_is_a_leak() -> None:
    token = "ghp_" + letters("a token in a header", 36)

    assert shown(setting("/health", X_Debug_Token=token)) == {("leak", "high", "/health")}


def test_an_address_with_a_password_is_no_place_to_send_to() -> None:
    def sends(to: str) -> Found:
        return found(when(lambda method, path, _: (method, path) == ("GET", "/"), (302, {"Location": to}, "")))

    assert sends(f"http://admin:{letters('a password', 12)}@127.0.0.1/") == {("redirect", "high", "/")}
    assert sends("http://127.0.0.1/@alice") == set()
    assert sends("/login?user=a@b.example") == set()


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("{}", True),
        ("//stranger.example/", True),
        ("/login?next={}", False),
        ("http://127.0.0.1/?url={}", False),
    ],
)
def test_a_redirect_to_where_its_parameters_say_is_a_warning(to: str, told: bool) -> None:
    def forwards(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
        for name in ("next", "url", "redirect", "return_to"):
            if method == "GET" and f"{name}=" not in path:
                return well(method, path, headers)
        asked = unquote(path.partition("return_to=")[2])
        return (302, {"Location": to.format(asked)}, "") if asked else well(method, path, headers)

    assert found(forwards) == ({("redirect", "medium", "/")} if told else set())


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [(f'<a href="https://{STRANGER}/reset">', 200, True), (f"https://{STRANGER}/ is not served", 421, False)],
)
def test_links_to_a_forwarded_host_are_a_warning(text: str, status: int, told: bool) -> None:
    behaviour = when(lambda method, path, headers: headers.get("X-Forwarded-Host") == STRANGER, (status, {}, text))

    assert found(behaviour) == ({("host", "medium", "/")} if told else set())


def test_a_trace_that_answers_with_what_it_was_sent_is_a_warning() -> None:
    def echo(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
        lines = "\r\n".join(f"{name}: {value}" for name, value in headers.items())
        return (200, {}, lines) if method == "TRACE" else well(method, path, headers)

    assert found(echo) == {("method", "medium", "/")}
    assert found(when(lambda method, path, _: method == "TRACE", (200, {}, "a page"))) == set()


@pytest.mark.parametrize("origin", ["null", f"https://127.0.0.1.{STRANGER}", "before a PUT"])
def test_every_origin_of_strangers_is_tried(origin: str) -> None:
    def allows(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
        status, usual, text = well(method, path, headers)
        asked = "before a PUT" if headers.get("Access-Control-Request-Method") == "PUT" else headers.get("Origin")
        more = {"Access-Control-Allow-Origin": headers["Origin"] or "", "Access-Control-Allow-Credentials": "true"}
        return status, {**usual, **more} if asked == origin else usual, text

    assert found(allows) == {("origin", "high", "/")}


DEBUGGERS = {
    "Starlette": "<p class='traceback-title'>Traceback</p>",
    "Phoenix": "<style>/* Plug.Debugger */</style>",
    "Better Errors": "<script>x.open('POST', '/__better_errors/1')</script>",
    "Next.js": "<nextjs-portal></nextjs-portal>",
}
INNARDS = {
    "MySQL": "You have an error in your SQL syntax; check the manual near '' at line 1",
    "psycopg": "psycopg.errors.UndefinedTable: LINE 1",
    "PostgreSQL": 'ERROR: relation "users" does not exist',
    "SQLite": "sqlite3.OperationalError: no such table: users",
    "PDO": "SQLSTATE[42S02]: Base table or view not found",
    "Oracle": "ORA-00942: table or view",
    "Ruby": "PG::UndefinedTable",
    "SQL Server": "Unclosed quotation mark after the character string ''.",
    "MongoDB": "MongoServerError: unknown operator",
    "PyMySQL": "pymysql.err.ProgrammingError: (1064)",
    "a path": "Error: ENOENT: no such file or directory, stat '/srv/app/public/x'",
    "Rust": "thread 'main' panicked at src/main.rs:10:5:\n",
    "Rust, with a number": "thread 'tokio-runtime-worker' (4711) panicked at src/main.rs:10:5:\n",
    "PHP": "<b>Warning</b>:  include(x.php): failed to open stream in <b>/var/www/x.php</b> on line <b>3</b>",
    "Go, in JSON": '{"error":"panic: x\\n\\ngoroutine 7 [running]:\\n"}',
    "Java, in JSON": '{"trace":"java.lang.NullPointerException\\n\\tat com.a.B.c(B.java:3)\\n"}',
}
HARMLESS = [
    "Our relation to customers does not exist only on paper.",
    "ENOENT is what a program says of no file.",
    "ORA et labora",
]


@pytest.mark.parametrize("text", DEBUGGERS.values(), ids=list(DEBUGGERS))
def test_more_pages_for_developers_fail(text: str) -> None:
    assert found(when(lambda method, path, _: path == "/absent", (500, {}, text))) == {
        ("error-page", "high", "/absent")
    }


@pytest.mark.parametrize("text", INNARDS.values(), ids=list(INNARDS))
def test_errors_of_databases_and_paths_of_servers_are_a_warning(text: str) -> None:
    assert found(when(lambda method, path, _: path == "/absent", (500, {}, text))) == {
        ("error-page", "medium", "/absent")
    }


@pytest.mark.parametrize("text", HARMLESS)
def test_words_about_errors_are_no_error(text: str) -> None:
    assert found(when(lambda method, path, _: path == "/absent", (404, {}, text))) == set()


def test_a_text_where_json_is_due_is_tried() -> None:
    def breaks(method: str, path: str, headers: Mapping[str, str]) -> bool:
        return method == "POST" and headers["Content-Type"] == "text/plain"

    assert found(when(breaks, (500, {}, TRACES["Node"]))) == {("error-page", "medium", "/orders")}


def test_a_page_that_always_has_a_traceback_is_a_manual_of_them() -> None:
    manual = (200, {}, TRACES["Python"])

    assert found(when(lambda method, path, _: method == "GET" and path.partition("?")[0] == "/", manual)) == set()
    assert found(when(lambda method, path, _: method == "GET" and path.startswith("/?%ff"), manual)) == {
        ("error-page", "medium", "/?%ff[]=%00")
    }
