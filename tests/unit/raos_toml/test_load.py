"""raos.toml: what is read from it, and what is refused with file, line and key."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path

import pytest

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.errors import BundleError
from ashat.raos_toml.load import NAME, SIZE_LIMIT, load_raos_toml, raos_toml_of

SAMPLE = (Path(__file__).parents[3] / "examples" / "raos" / NAME).read_text(encoding="utf-8")
LEAST = '[raos]\nname = "RaOS"\nversion = "1"\n'


def refusal(text: str) -> str:
    with pytest.raises(BundleError) as caught:
        load_raos_toml(text.encode("utf-8"))
    message = str(caught.value)
    assert "\n" not in message
    return message


def changed(old: str, new: str) -> str:
    assert old in SAMPLE
    return SAMPLE.replace(old, new, 1)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_the_sample_is_read() -> None:
    raos = load_raos_toml(SAMPLE.encode("utf-8"))
    assert raos.raos.name == "RaOS"
    assert raos.health.path == "/health"
    assert [endpoint.method for endpoint in raos.endpoints].count("POST") == 1
    assert raos.endpoints[0].expected_json == {"name": "RaOS", "database": "ok"}
    assert raos.database is not None
    assert raos.database.migration == "0003"
    assert raos.performance is not None
    assert raos.performance.error_rate == 0
    assert "X-Frame-Options" in raos.security.headers


def test_only_the_name_and_version_are_required() -> None:
    raos = load_raos_toml(LEAST.encode("utf-8"))
    assert raos.health.path == "/health"
    assert raos.modules.report == "/modules"
    assert raos.endpoints == []
    assert raos.database is None
    assert raos.performance is None
    assert refusal("") == "raos.toml: raos is missing; add it."
    assert refusal('[raos]\nname = "RaOS"\n') == "raos.toml, line 1: raos.version is missing; add it."


def test_contains_may_be_one_text_or_several() -> None:
    endpoint = '[[endpoint]]\nname = "a"\npath = "/a"\ncontains = '
    one = load_raos_toml((LEAST + endpoint + '"x"\n').encode("utf-8"))
    two = load_raos_toml((LEAST + endpoint + '["x", "y"]\n').encode("utf-8"))
    assert one.endpoints[0].contains == ["x"]
    assert two.endpoints[0].contains == ["x", "y"]


def test_an_allow_list_entry_needs_a_reason_and_an_end() -> None:
    entry = '[[security.allow]]\nrule = "secret"\npath = "Modules/Auth/*"\n'
    full = LEAST + entry + 'reason = "a test key, revoked in May"\nuntil = 2026-12-31\n'
    assert load_raos_toml(full.encode("utf-8")).security.allow[0].until == date(2026, 12, 31)
    assert "security.allow[1].reason is missing" in refusal(LEAST + entry + "until = 2026-12-31\n")
    assert "security.allow[1].until is missing" in refusal(LEAST + entry + 'reason = "for a reason"\n')
    assert "security.allow[1].reason" in refusal(LEAST + entry + 'reason = "because"\nuntil = 2026-12-31\n')


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("status = 401", "statu = 401", "there is no key 'statu' in endpoint[2]; did you mean 'status'?"),
        ("[health]", "[healt]", "there is no key 'healt'; did you mean 'health'?"),
        ("p95_ms = 250", "percentile = 250", "there is no key 'percentile' in performance; known are paths,"),
        ('version = "9.4.1"', "version = 9.4", "raos.version: input should be a valid string; this is a number with a"),
        (
            "time_limit = 2\n",
            'time_limit = "2"\n',
            "endpoint[1].time_limit: input should be a valid number; this is a text",
        ),
        ('path = "/health"', 'path = "health"', "health.path: expected a path on the program's own server"),
        ('path = "/health"', 'path = "//evil.example/"', "health.path: expected a path on the program's own server"),
        ('report = "/modules"', 'none = "because"', "modules.none: string should have at least 8 characters"),
        ('ready = "/ready"', 'expect = "anything"', "health.expect: input should be 'release' or 'status'"),
        ("latency_ms = 500", "latency_ms = 0", "database.latency_ms: input should be greater than 0"),
        ("requests = 300", "requests = 3", "performance.requests: input should be greater than or equal to 20"),
        ("error_rate = 0", "error_rate = 1001", "performance.error_rate: input should be less than or equal to 1000"),
        ('migrations = "migrations/*.sql"', 'migrations = "../*"', "database.migrations: expected a pattern of files"),
        (
            'contains = "announcements"',
            f"matches = {['x'] * 51}",
            "endpoint[6].matches: list should have at most 50 items",
        ),
        ('method = "POST"', 'method = "BREW"', "endpoint[3].method: input should be 'GET', 'HEAD',"),
        ('body = { name = "" }', "body = { name = 2026-01-01 }", "endpoint[3].body: a date cannot be written as JSON"),
        ('contains = "announcements"', "matches = 'a(b'", "endpoint[6].matches[1]: no regular expression: missing ),"),
        ('contains = "announcements"', "matches = 7", "endpoint[6].matches: input should be a valid list"),
        (
            'schema = "schemas/item.json"',
            "schema = true",
            "endpoint[5].schema: expected a table, or the path of a file",
        ),
        (
            'schema = "schemas/item.json"',
            'schema = "../item.json"',
            "endpoint[5].schema: expected a table, or the path",
        ),
        ('body = { name = "" }', "body = { name = nan }", "endpoint[3].body: nan is no number of JSON"),
        ('schema = "schemas/item.json"', "schema = { until = 2026-01-01 }", "endpoint[5].schema: a date cannot be"),
        ("status = 401", 'auth = "Staff Only"', "endpoint[2].auth: expected the name of a credential, such as staff"),
        ('openapi = "/openapi.json"', 'openapi = "openapi.json"', "api.openapi: expected a path on the program's own"),
    ],
)
def test_a_wrong_key_is_named_with_its_line(old: str, new: str, said: str) -> None:
    text = changed(old, new)
    message = refusal(text)
    assert said in message
    assert message.startswith(f"raos.toml, line {line_of(text, new)}: ")


def test_what_is_not_there_promises_nothing() -> None:
    said = refusal(changed("latency_ms = 500", 'none = "no database"'))
    rest = "none says that there is nothing to look at; leave out migration, migrations, tables, or none."
    assert said == f"raos.toml, line {line_of(changed('', ''), '[database]')}: database: {rest}"


def test_what_is_no_toml_is_named_with_its_line() -> None:
    text = changed('report = "/modules"', "report = /modules")
    assert refusal(text).startswith(f"raos.toml, line {line_of(text, 'report =')}: this is not TOML: invalid value")
    assert refusal("[raos") == "raos.toml, line 1: this is not TOML: expected ']' at the end of a table declaration."
    assert "nested too deeply" in refusal("a = " + "[" * 50_000)
    assert (
        refusal("\na" + ".a" * 120_000 + " = 1") == "raos.toml, line 2: this is not TOML: a key has more than 32 parts."
    )
    assert refusal("\n\na = " + "1" * 5_000).startswith(
        "raos.toml, line 3: this is not TOML: a number has more than 300"
    )


def test_the_line_of_a_wrong_key_is_found_in_time_whatever_stands_above_it() -> None:
    began = time.process_time()
    message = refusal("[raos]\nx = [\n[" + " " * 250_000 + "\n1]]\nname = 'a'\nversion = '1'")

    assert message.startswith("raos.toml, line 2: there is no key 'x' in raos")
    assert time.process_time() - began < 20


def test_a_pattern_that_python_wonders_about_is_taken_in_silence(recwarn: pytest.WarningsRecorder) -> None:
    load_raos_toml(changed('contains = "announcements"', "matches = '[[:digit:]]'").encode())
    assert recwarn.list == []


def test_a_key_that_is_a_book_is_named_by_its_beginning() -> None:
    assert len(refusal("[raos]\n" + "k" * 200_000 + " = 1")) < 300
    assert len(refusal('[raos]\n"' + "k" * 200_000 + '".x = {}')) < 300


def test_what_is_not_utf8_is_named_with_its_line() -> None:
    with pytest.raises(BundleError, match=r"raos\.toml, line 2: the file is not UTF-8"):
        load_raos_toml(b'[raos]\nname = "\xff"\n')


def test_a_line_inside_a_text_of_several_lines_is_not_taken_for_a_key() -> None:
    text = '[raos]\nname = """\nversion = 1\n"""\nversion = 2\n'
    assert "raos.toml, line 2: raos.name: expected a text" in refusal(text)
    text = LEAST + '[[endpoint]]\nname = "a"\npath = "/"\ncontains = """\nstatus = 1\n"""\nstatus = 9\n'
    assert "raos.toml, line 10: endpoint[1].status" in refusal(text)


def test_two_endpoints_of_one_name_are_refused_at_the_second() -> None:
    text = changed('name = "Auth refuses a stranger"', 'name = "Core tells its status"')
    second = text.rindex('name = "Core tells its status"')
    line = text[:second].count("\n") + 1
    assert refusal(text).startswith(f"raos.toml, line {line}: another endpoint is named 'Core tells its status'")


def test_several_mistakes_are_counted_and_a_misspelt_key_comes_first() -> None:
    message = refusal('[raos]\nnmae = "RaOS"\nversion = 1\n')
    assert message == "raos.toml, line 2: there is no key 'nmae' in raos; did you mean 'name'? (and 2 more)"


def test_the_source_is_named_as_asked() -> None:
    with pytest.raises(BundleError, match=r"^/srv/raos/raos\.toml, line 1: "):
        load_raos_toml(b"[raos", source="/srv/raos/raos.toml")


def entry(path: str, size: int = 3) -> FileEntry:
    return FileEntry(path, size, 0o644, "0" * 64)


def test_a_bundle_without_it_is_refused() -> None:
    manifest = Manifest.from_files([entry("Modules/Core/__init__.py")])
    with pytest.raises(BundleError, match=r"has no raos\.toml at its root: add one with \[raos\] name and version"):
        raos_toml_of(manifest, lambda path: b"")


def test_a_bundle_with_it_is_read() -> None:
    manifest = Manifest.from_files([entry(NAME)])
    assert raos_toml_of(manifest, lambda path: LEAST.encode("utf-8")).raos.version == "1"


def test_a_pattern_of_migrations_that_finds_none_is_refused_with_its_line() -> None:
    text = LEAST + '[database]\nmigrations = "sql/*.sql"\n'
    manifest = Manifest.from_files([entry(NAME), entry("sql/up/0001.sql")])
    assert raos_toml_of(manifest, lambda path: text.encode("utf-8")).database is not None
    with pytest.raises(BundleError) as caught:
        raos_toml_of(Manifest.from_files([entry(NAME)]), lambda path: text.encode("utf-8"))
    assert str(caught.value) == (
        "raos.toml, line 5: database.migrations: no file of the bundle is named like 'sql/*.sql'; correct it, or leave "
        "it out."
    )


def test_a_huge_one_is_refused_unread() -> None:
    manifest = Manifest.from_files([entry(NAME, size=SIZE_LIMIT + 1)])
    with pytest.raises(BundleError, match="at most"):
        raos_toml_of(manifest, lambda path: pytest.fail("it was read"))
    with pytest.raises(BundleError, match="at most"):
        load_raos_toml(b"#" * (SIZE_LIMIT + 1))


OWN = LEAST + '[[check]]\nname = "{name}"\npath = "/a"\n'


def test_an_own_check_is_named_by_a_word_of_its_own() -> None:
    assert load_raos_toml(OWN.format(name="payments-2").encode("utf-8")).checks[0].severity == "high"
    for name in ("Payments", "2", "", "a b", "x" * 61):
        assert "line 5: check[1].name: expected a word of a-z, 0-9 and -" in refusal(OWN.format(name=name))
    assert "another check is named 'a'" in refusal(OWN.format(name="a") + OWN.format(name="a").removeprefix(LEAST))
    assert "line 7: check[1].severity" in refusal(OWN.format(name="a") + 'severity = "low"\n')
