"""A team's settings files, and what is said of databases and installs of other versions, in a line each."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from ashat.cli.control_plane import team
from ashat.cli.control_plane.prefect_schema import PrefectChain, installed_chain, note_version, schema_fault
from ashat.cli.control_plane.versions import Versions, applied_version, version_difference
from ashat.errors import ControlPlaneError, UsageError
from ashat.settings import Settings
from tests.support.processes.deploy_cli import deploy

CHAIN = PrefectChain("3.9.1", "b", frozenset({"a", "b"}))
GIVEN = {
    "database": "postgresql://ashat@db/prefect",
    "ledger": "postgresql://ashat@db/ashat",
    "redis": "redis://redis:6379/0",
    "public": "https://prefect.example.com/",
}


def given(**changes: str) -> team.TeamAddresses:
    return team.TeamAddresses(**{**GIVEN, **changes})


def read(text: str) -> dict[str, str]:
    return {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in text.splitlines())}


def test_only_the_servers_file_leads_to_the_databases_of_prefect() -> None:
    files = team.files_for(team.check_addresses(given()))
    server, client = read(files["server.env"]), read(files["client.env"])
    assert server[team.DATABASE] == "postgresql+asyncpg://ashat@db/prefect"
    assert server[team.PASSWORD] == client["PREFECT_API_AUTH_STRING"]
    assert client["PREFECT_API_URL"] == "https://prefect.example.com/api"
    assert client[team.PUBLIC] == server[team.PUBLIC] == "https://prefect.example.com"
    assert team.SECRET not in server
    people = team.files_for(team.check_addresses(given(people="https://deploy.example.com")))
    assert len(read(people["server.env"])[team.SECRET]) > 40
    assert team.SECRET not in people["client.env"]
    assert read(people["client.env"])[team.PUBLIC] == "https://deploy.example.com"
    assert not {team.DATABASE, team.REDIS, team.PASSWORD} & client.keys()
    assert len(server[team.PASSWORD]) > 40
    assert team.files_for(team.check_addresses(given()))["server.env"] != files["server.env"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"database": "mysql://ashat@db/prefect"}, "--database is an address such as postgresql://"),
        ({"database": "postgresql://db"}, "--database is an address such as"),
        ({"ledger": "sqlite:////var/ledger.db"}, "--ledger is an address such as"),
        ({"ledger": "postgresql+psycopg://other@db:5432/prefect"}, "are one database"),
        ({"redis": "http://redis"}, "--redis is an address such as"),
        ({"redis": "redis://:a'b@redis"}, "--redis has a blank, a quote"),
        ({"database": "postgresql://u:$(id)@db/x"}, "--database has a blank, a quote"),
        ({"public": "http://prefect.example.com"}, "--url begins with https://"),
        ({"public": "https://prefect.example.com/prefect"}, "without a path"),
        ({"public": "prefect.example.com"}, "without a path"),
        ({"people": "http://deploy.example.com"}, "--people-url begins with https://"),
        ({"database": "postgresql://ashat@db:five/prefect"}, "--database is no address: its host or its port"),
        ({"database": "postgresql://ashat@db:99999/prefect"}, "--database is no address"),
        ({"ledger": "postgresql://ashat:hunter2/@db/ashat"}, "--ledger is no address"),
        ({"redis": "redis://[redis"}, "--redis is no address"),
        ({"redis": "redis://redis:five"}, "--redis is no address"),
        ({"public": "https://prefect.example.com:five"}, "--url is no address"),
        ({"people": "https://[deploy"}, "--people-url is no address"),
    ],
)
def test_an_address_that_is_none_is_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as told:
        team.check_addresses(given(**changes))
    assert words in str(told.value)
    assert "\n" not in str(told.value)
    assert "hunter2" not in str(told.value)


def test_a_value_is_quoted_only_where_a_shell_would_not_take_it_as_it_is() -> None:
    long = "postgresql://ashat@db/prefect?sslmode=require&connect_timeout=5"
    text = team.files_for(team.check_addresses(given(database=long)))["server.env"]
    lines = dict(line.split("=", 1) for line in text.splitlines())
    assert lines[team.REDIS] == "redis://redis:6379/0"
    assert lines[team.DATABASE] == f"'{long.replace('postgresql', 'postgresql+asyncpg', 1)}'"


def test_init_writes_two_private_files_and_overwrites_none(tmp_path: Path) -> None:
    words = [word for name, value in GIVEN.items() for word in (f"--{'url' if name == 'public' else name}", value)]
    done = deploy(tmp_path / "home", "team", "init", *words, "--to", str(tmp_path / "etc"))
    assert done.returncode == 0, done.stderr
    for name in ("server.env", "client.env"):
        assert (tmp_path / "etc" / name).stat().st_mode & 0o777 == 0o600
    sourced = subprocess.run(
        ["sh", "-c", f"set -a; . {tmp_path}/etc/server.env; env"], capture_output=True, text=True, check=True
    )
    assert "PREFECT_REDIS_MESSAGING_URL=redis://redis:6379/0" in sourced.stdout.splitlines()
    before = (tmp_path / "etc/server.env").read_bytes()
    again = deploy(tmp_path / "home", "team", "init", *words, "--to", str(tmp_path / "etc"))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is there already" in again.stderr
    assert (tmp_path / "etc/server.env").read_bytes() == before


def test_a_server_without_its_settings_says_which_in_a_line(tmp_path: Path) -> None:
    for words in (("server",), ("services",), ("upgrade",)):
        done = deploy(tmp_path / "home", "team", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert "PREFECT_REDIS_MESSAGING_URL" in done.stderr


@pytest.mark.parametrize("name", [team.DATABASE, team.REDIS, team.PUBLIC])
def test_a_setting_that_is_no_address_is_a_line(tmp_path: Path, name: str) -> None:
    env = read(team.files_for(team.check_addresses(given()))["server.env"]) | {name: "https://[db:five"}
    done = deploy(tmp_path / "home", "team", "server", env=env)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{name} is no address" in done.stderr


def test_databases_that_do_not_answer_are_named_in_a_line_without_their_passwords(tmp_path: Path) -> None:
    env = read(team.files_for(team.check_addresses(given()))["server.env"]) | {
        team.DATABASE: "postgresql+asyncpg://ashat:hunter2@127.0.0.1:1/prefect",
        team.LEDGER: f"sqlite:///{tmp_path}/ledger.db",
        team.REDIS: "redis://:hunter2@127.0.0.1:1/0",
    }
    done = deploy(tmp_path / "home", "team", "server", env=env)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Redis does not answer (redis://127.0.0.1:1/0)" in done.stderr
    assert "hunter2" not in done.stderr


def test_workers_lose_what_only_servers_need(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path))
    for name, value in read(team.files_for(team.check_addresses(given()))["server.env"]).items():
        monkeypatch.setenv(name, value)
    made = team.server_environment(Settings())
    assert made["PREFECT_SERVER_DOCKET_URL"] == "redis://redis:6379/0"
    assert made["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] == "false"
    left = team.without_servers_own(made)
    assert "redis://redis:6379/0" not in left.values()
    assert not [name for name in left if "CONNECTION_URL" in name]
    assert team.PASSWORD not in left


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_the_installed_chain_is_the_one_that_alembic_reads(dialect: str) -> None:
    spec = importlib.util.find_spec("prefect")
    assert spec is not None
    assert spec.origin is not None
    config = Config()
    config.set_main_option("script_location", os.path.join(os.path.dirname(spec.origin), "server/database/_migrations"))
    versions = os.path.join(os.path.dirname(spec.origin), "server/database/_migrations/versions", dialect)
    config.set_main_option("version_locations", versions)
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    chain = installed_chain(dialect)
    assert [chain.head] == scripts.get_heads()
    assert chain.known == {script.revision for script in scripts.walk_revisions()}


@pytest.mark.parametrize(
    ("found", "wrote", "words"),
    [
        (["b"], "", ""),
        (None, "", "has no tables yet: UPGRADE."),
        (["a"], "", "has an older schema (a) than Prefect 3.9.1 (b): UPGRADE."),
        (
            ["z"],
            "3.10.0",
            "Prefect 3.10.0 wrote IT (schema z), and this install has Prefect 3.9.1, which",
        ),
        (["z"], "", "A newer Prefect wrote IT"),
        (["z"], "3.9.1", "A newer Prefect wrote IT"),
        ([], "", "IT is half migrated: it names 0 schemas"),
        (["a", "b"], "", "IT is half migrated: it names 2 schemas"),
    ],
)
def test_what_a_schema_of_prefect_means(found: Any, wrote: str, words: str) -> None:
    line = schema_fault(found, CHAIN, what="IT", wrote=wrote, upgrade="UPGRADE")
    assert words in line
    assert bool(words) == bool(line)


def test_a_home_that_a_newer_prefect_wrote_is_one_line_with_both_versions(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "prefect").mkdir(parents=True)
    note_version(home)
    (home / "prefect/version").write_text("3.99.0\n")
    with closing(sqlite3.connect(home / "prefect/prefect.db")) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES ('0123456789ab')")
    before = (home / "prefect/prefect.db").read_bytes()
    for words in (("up",), ("up", "--detach"), ("schedule", "pause", "x")):
        done = deploy(home, *words)
        assert (done.returncode, done.stdout) == (1, "")
        line = done.stderr.splitlines()[-1]
        assert "Prefect 3.99.0 wrote" in line
        assert f"this install has Prefect {installed_chain('sqlite').version}, which cannot read it" in line
        assert "Traceback" not in done.stderr
    assert (home / "prefect/prefect.db").read_bytes() == before


@pytest.mark.parametrize(
    ("own", "there", "words"),
    [
        (("0.1.0", "3.9.1"), ("0.1.0", "3.9.1"), ""),
        (("0.1.0", "3.9.1"), ("", ""), ""),
        (("0.1.0", "3.9.1"), ("0.2.0", "3.9.1"), "deployments are of 0.2.0: upgrade this install."),
        (("0.10.0", "3.9.1"), ("0.9.0", "3.9.1"), "deploy up applies this version's"),
        (("0.1.0", "3.9.1"), ("0.1.0", "3.10.0"), "the control plane's server has 3.10.0: upgrade"),
        (("0.1.0", "3.10.0"), ("0.1.0", "3.9.1"), "upgrade the API servers first."),
        (("0.1.0", "3.10.0"), ("0.1.0", "3.9.1.dev4+x"), "upgrade the API servers first."),
        (("0.1.0", "3.9.1"), ("0.1.0", "unknown"), "server has unknown"),
    ],
)
def test_what_versions_differ_in_is_said_in_a_line(own: tuple[str, str], there: tuple[str, str], words: str) -> None:
    line = version_difference(Versions(*own), Versions(*there))
    assert words in line
    assert bool(line) == bool(words)


def test_the_version_that_was_applied_is_the_part_before_the_digests() -> None:
    assert applied_version("0.1.0+abc+def") == "0.1.0"
    assert [applied_version(value) for value in (None, 3, ["x"], "")] == ["", "", "", ""]


def test_a_control_plane_error_is_what_a_missing_prefect_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ControlPlaneError, match="migrations are not as expected"):
        installed_chain("sqlite")
