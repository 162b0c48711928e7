"""What deploy/ has for a team is taken by the tools that it is for, and says what the code and the documents say."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]
from typer.main import get_command

from ashat.cli.control_plane import team
from ashat.cli.control_plane.vouched import SECRET_HEADER, USER_HEADER
from ashat.cli.main import app
from scripts.dependencies import ROOT
from tests.support.fakes.certificates import make_certificate
from tests.support.needs import requires_compose, requires_nginx

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
VALUES = yaml.safe_load((DEPLOY / "helm/prefect-server.yaml").read_text("utf-8"))
# The schema of the chart's version 2026.8, by Prefect, under the Apache licence 2.0.
SCHEMA = json.loads((ROOT / "tests/data/helm/prefect-server.values.schema.json").read_text("utf-8"))


def composed() -> dict[str, Any]:
    """The compose file as YAML has it."""
    read: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))
    return read


def check_words(words: list[str]) -> None:
    """Check that `deploy` takes these words."""
    found: Any = get_command(app)
    while words and words[0] in getattr(found, "commands", {}):
        found, words = found.commands[words[0]], words[1:]
    options = {name for parameter in found.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, words
    assert not getattr(found, "commands", {}), "a command, not a group"


@requires_compose
def test_compose_takes_its_file(tmp_path: Path) -> None:
    directory = tmp_path / "deploy/compose"
    shutil.copytree(COMPOSE, directory)
    (directory / "etc").mkdir()
    addresses = team.TeamAddresses("postgresql://a@b/c", "postgresql://a@b/d", "redis://r:6379/0", "https://p.example")
    for name, text in team.files_for(team.check_addresses(addresses)).items():
        (directory / "etc" / name).write_text(text)

    def config() -> subprocess.CompletedProcess[str]:
        words = ["docker-compose", "--file", str(directory / "compose.yaml"), "config"]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)

    done = config()
    assert done.returncode == 0, done.stderr
    made = yaml.safe_load(done.stdout)["services"]
    assert made["api-1"]["environment"][team.REDIS] == "redis://r:6379/0"
    for name in ("worker-alpha", "worker-control"):
        assert not {team.DATABASE, team.REDIS, team.PASSWORD} & made[name]["environment"].keys()
    broken = (directory / "compose.yaml").read_text().replace("depends_on: [proxy]", "depend_on: [proxy]")
    (directory / "compose.yaml").write_text(broken)
    assert config().returncode != 0, "a mistake would have been found"


def test_compose_and_the_chart_run_commands_that_there_are() -> None:
    services = composed()["services"]
    ours = [service for service in services.values() if service.get("image") == "ashat-deploy"]
    assert len(ours) == 6
    for service in ours:
        check_words(service["command"])
    for part in (VALUES["server"], VALUES["backgroundServices"]):
        assert part["command"] == ["deploy"]
        check_words(part["args"])
    assert VALUES["migrations"]["command"].startswith("deploy ")
    check_words(VALUES["migrations"]["command"].split()[1:])
    assert 'ENTRYPOINT ["deploy"]' in (COMPOSE / "Dockerfile").read_text("utf-8")


def test_the_charts_schema_knows_each_value_and_takes_it() -> None:
    assert list(jsonschema.Draft7Validator(SCHEMA).iter_errors(VALUES)) == []
    wrong = {**VALUES, "server": {**VALUES["server"], "replicaCount": "two"}}
    assert list(jsonschema.Draft7Validator(SCHEMA).iter_errors(wrong)) != []

    def unknown(values: Any, schema: Any, path: str) -> list[str]:
        known = schema.get("properties") if isinstance(schema, dict) else None
        if not isinstance(values, dict) or not known:
            return []
        return [
            each
            for name, value in values.items()
            for each in ([f"{path}.{name}"] if name not in known else unknown(value, known[name], f"{path}.{name}"))
        ]

    assert unknown(VALUES, SCHEMA, "") == []


def test_the_migration_gets_each_setting_that_a_server_needs() -> None:
    given = {entry["name"] for entry in VALUES["migrations"]["env"]} | {team.DATABASE}
    assert {team.DATABASE, team.REDIS, team.PASSWORD, team.API, team.PUBLIC, team.LEDGER} <= given


@requires_nginx
def test_nginx_takes_both_files_together(tmp_path: Path) -> None:
    certificate, key, _ = make_certificate(tmp_path / "tls")
    secret = tmp_path / "secret.conf"
    secret.write_text(f'proxy_set_header {SECRET_HEADER} "x";\n')
    text = "".join(
        (DEPLOY / "nginx" / name).read_text("utf-8") for name in ("ashat-team.conf", "ashat-team-people.conf")
    )
    for name in ("prefect", "deploy"):
        text = text.replace(f"/etc/ssl/ashat/{name}.pem", str(certificate))
        text = text.replace(f"/etc/ssl/private/ashat/{name}.key", str(key))
    text = text.replace("/etc/nginx/ashat-proxy-secret.conf", str(secret)).replace("listen [::]:443 ssl;", "")
    path = tmp_path / "nginx.conf"
    path.write_text(f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{ }}\nhttp {{\n{text}\n}}\n")
    done = subprocess.run([str(shutil.which("nginx")), "-t", "-c", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("header", [USER_HEADER, SECRET_HEADER])
def test_each_nginx_replaces_what_a_client_says_of_people(header: str) -> None:
    machines = (DEPLOY / "nginx/ashat-team.conf").read_text("utf-8")
    assert f'proxy_set_header {header} "";' in machines
    people = (DEPLOY / "nginx/ashat-team-people.conf").read_text("utf-8")
    assert f"proxy_set_header {header} " in people
