"""`ashat-node check`: a node as `init` makes it lacks what it lacks, each fault is named, and nothing is changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ashat.node.core.config import NodeConfig
from ashat.protocol.messages import Role, Scope
from ashat.trust.authority.authority import Authority
from tasks.selftest.faults.certificates import make_identity
from tests.support.processes.deploy_cli import deploy
from tests.support.processes.node import NodeProcess, example_app, free_port
from tests.support.processes.node_cli import Run, ashat_node, runner

Change = Callable[[Path], None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


def checked(run: Run, directory: Path, code: int) -> dict[str, tuple[str, str]]:
    """What `check --json` finds of the node in `directory`, which it leaves as it is."""
    before = sorted((str(path), path.lstat().st_mode, path.lstat().st_size) for path in directory.rglob("*"))
    ended, out, _ = run("check", "--data", directory, "--json")
    assert before == sorted((str(path), path.lstat().st_mode, path.lstat().st_size) for path in directory.rglob("*"))
    findings = json.loads(out)["findings"]
    assert ended == code, out
    worst = ["ok", "not looked at", "warning", "wrong"]
    ordered = sorted(findings, key=lambda finding: worst.index(finding["verdict"]))
    return {finding["what"]: (finding["verdict"], finding["seen"]) for finding in ordered}


def first(run: Run, directory: Path, role: str = "public", *words: object) -> Path:
    """A node as `init` makes it, on a free port."""
    out = directory.with_name(f"{directory.name}.token")
    code, _, said = run("init", "--role", role, "--data", directory, "--port", free_port(), "--out", out, *words)
    assert code == 0, said
    return directory


def replace(file: str, old: str, new: str) -> Change:
    def change(directory: Path) -> None:
        path = directory / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def with_mode(file: str, mode: int) -> Change:
    return lambda directory: (directory / file).chmod(mode)


def a_certificate(days: int) -> Change:
    def change(directory: Path) -> None:
        made = make_identity(directory, ends=datetime.now(UTC) + timedelta(days=days))
        assert made.certificate.name == "cert.pem"
        replace("node.toml", "# tls_", "tls_")(directory)

    return change


def another_key(directory: Path) -> None:
    a_certificate(90)(directory)
    (directory / "key.pem").write_bytes(make_identity(directory / "other").key.read_bytes())


def with_dsn_open_to_others(directory: Path) -> None:
    replace("node.toml", "# dsn = ", "dsn = ")(directory)
    with_mode("node.toml", 0o644)(directory)


def no_tokens(directory: Path) -> None:
    (directory / "tokens.json").unlink()


@pytest.mark.parametrize(
    ("change", "what", "verdict", "seen"),
    [
        (replace("node.toml", 'role = "public"', 'role = "publick"'), "settings", "wrong", "role"),
        (replace("node.toml", "[app]", "app ="), "settings", "wrong", "is not TOML"),
        (with_mode("tokens.json", 0o644), "secrets", "wrong", r"tokens\.json \(mode 0644\)"),
        (with_dsn_open_to_others, "secrets", "wrong", r"node\.toml \(mode 0644\)"),
        (with_mode("node.toml", 0o644), "secrets", "ok", "closed to others"),
        (with_mode("", 0o777), "data", "wrong", "others can write"),
        (no_tokens, "tokens", "wrong", "no token .* opens anything"),
        (replace("node.toml", "# command", "command"), "program", "warning", "the node's own user"),
        (replace("node.toml", '# command = ["python3"', 'command = ["no-such"'), "program", "wrong", "no-such"),
        (replace("node.toml", '# command = ["python3"', 'command = ["bin/go"'), "program", "warning", "own user"),
        (
            replace("node.toml", '# user = "raos"', 'command = "sh"\nuser = "nobody-here"'),
            "program",
            "wrong",
            "no user",
        ),
        (replace("node.toml", "# dsn_file", "dsn_file"), "database", "wrong", "dsn cannot be read"),
        (replace("node.toml", '# dsn = "sqlite:///{data}/raos.db"', 'dsn = "nonsense"'), "database", "wrong", "no SQL"),
        (replace("node.toml", "sqlite:///{data}/raos.db", "x"), "database", "not looked at", "no DSN"),
        (replace("node.toml", '"127.0.0.1"', '"0.0.0.0"'), "TLS", "warning", "readable"),
        (replace("node.toml", '"127.0.0.1"', '"192.0.2.1"'), "port", "wrong", "cannot be used"),
        (replace("node.toml", "# tls_", "tls_"), "TLS", "wrong", "cannot be used: No such file"),
        (a_certificate(90), "TLS", "ok", r"holds until .* for localhost, 127\.0\.0\.1"),
        (a_certificate(10), "TLS", "warning", "ends on"),
        (a_certificate(-1), "TLS", "wrong", "ended on"),
        (another_key, "TLS", "wrong", "cannot be used"),
    ],
)
def test_each_fault_of_a_node_is_named(
    run: Run, tmp_path: Path, change: Change, what: str, verdict: str, seen: str
) -> None:
    directory = first(run, tmp_path / "node")
    change(directory)
    code = 1 if verdict == "wrong" else 0
    found = checked(run, directory, code)
    assert found[what][0] == verdict
    assert what == "settings" or found["clock"][0] == "not looked at"
    assert re.search(seen, found[what][1]), found[what]


def test_where_there_is_no_node_it_says_so(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("check", "--data", tmp_path / "none")
    assert code == 1
    assert "none/node.toml cannot be read: No such file or directory" in out
    assert "➖ all else: the settings cannot be read" in out


@pytest.fixture
def omega(tmp_path: Path) -> NodeProcess:
    return NodeProcess(tmp_path / "omega", role=Role.OMEGA)


def test_a_mainframe_as_init_makes_it_lacks_its_licence_and_its_root_and_then_nothing(
    run: Run, tmp_path: Path, omega: NodeProcess
) -> None:
    with omega:
        directory = first(run, tmp_path / "mainframe", "mainframe", "--omega", omega.url)
        found = checked(run, directory, 1)
        assert {what for what, (verdict, _) in found.items() if verdict == "wrong"} == {"licence", "root"}
        assert found["OMEGA, role"] == ("ok", "omega 'omega', runs nothing yet")
        code, key, said = run("licence", "add", "--name", "m", "--data", omega.data)
        assert code == 0, said
        (directory / "licence").write_text(key)
        (directory / "licence").chmod(0o644)
        assert checked(run, directory, 1)["licence"][0] == "wrong"
        (directory / "licence").chmod(0o600)
        (directory / "root.json").write_text("{}")
        assert "is no TUF metadata" in checked(run, directory, 1)["root"][1]
        (directory / "root.json").write_bytes(a_root(tmp_path, omega))
        found = checked(run, directory, 0)
        assert found["root"][0] == found["licence"][0] == "ok"
        assert found["agent"][0] == "not looked at"
        with omega.client() as client:
            assert [mainframe.last_seen for mainframe in client.mainframes()] == [None]
    assert checked(run, directory, 1)["OMEGA, reachable"][0] == "wrong"


def a_root(home: Path, omega: NodeProcess) -> bytes:
    """The root of the one-person mode for that OMEGA."""
    keys = home / "omega-keys.json"
    keys.write_text(ashat_node("trust-keys", "--data", omega.data).stdout)
    made = deploy(home / "home", "trust", "init", "--omega-keys", str(keys))
    assert made.returncode == 0, made.stderr
    return (Authority(home / "home").directory / "root.json").read_bytes()


def test_a_node_that_runs_has_its_port(run: Run, tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", app=example_app()) as node:
        code, out, _ = run("check", "--config", node.config, "--json")
        found = {finding["what"]: finding for finding in json.loads(out)["findings"]}
        assert (code, found["port"]["seen"]) == (0, f"the node serves on {node.url}")
        assert node.token(Scope.ADMIN) not in out
    assert NodeConfig.load(node.config).port == node.port
    code, out, _ = run("check", "--config", node.config)
    assert f"port: 127.0.0.1:{node.port} is free" in out
