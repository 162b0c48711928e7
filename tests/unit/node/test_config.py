"""A node's settings and its command: what wins, and a line for each mistake."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from ashat.errors import UsageError
from ashat.node.access.tokens import TokenFile
from ashat.node.cli.flags import settings_and_flags, settings_from, settings_table
from ashat.node.cli.main import app, main
from ashat.node.core.config import NodeConfig
from ashat.protocol.messages import Role, Scope
from tests.support.processes.node import ROOT, NodeProcess
from tests.support.processes.node_cli import Run, ashat_node


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ASHAT_NODE_")]:
        monkeypatch.delenv(name)


def written(directory: Path, text: str) -> Path:
    path = directory / "node.toml"
    path.write_text(text)
    return path


def mistakes(file: Path | None, **flags: object) -> list[str]:
    with pytest.raises(UsageError) as refused:
        NodeConfig.load(file, **flags)
    return str(refused.value).splitlines()


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, 'role = "public"\ndata = "d"\nport = 1\nname = "a"\n[app]\ncommand = ["x"]\nport = 2\n')
    monkeypatch.setenv("ASHAT_NODE_NAME", "b")
    monkeypatch.setenv("ASHAT_NODE_PORT", "3")
    monkeypatch.setenv("ASHAT_NODE_APP__PORT", "4")
    monkeypatch.setenv("ASHAT_NODE_APP__HOOK", "[]")
    loaded = NodeConfig.load(file, port=5, name=None)
    assert (loaded.port, loaded.name, loaded.app.port, loaded.app.command) == (5, "b", 4, ["x"])
    assert loaded.data == tmp_path / "d"
    assert loaded.tokens_path == tmp_path / "d" / "tokens.json"


GIVEN = {
    "role": ("omega", Role.OMEGA),
    "name": ("n", "n"),
    "host": ("::1", "::1"),
    "port": ("1", 1),
    "data": ("/d", Path("/d")),
    "token-file": ("t", Path("t")),
    "omega": ("https://o", "https://o"),
    "license-file": ("l", Path("l")),
    "ca-file": ("c", Path("c")),
    "tls-cert": ("p", Path("p")),
    "tls-key": ("k", Path("k")),
    "insecure-http": (None, True),
    "trust-root": ("r", Path("r")),
    "minimum-release-seq": ("2", 2),
    "channel": ("early", "early"),
    "unsigned-releases": (None, True),
    "poll-interval": ("0.5", 0.5),
    "watch-seconds": ("30", 30),
    "install": ("ask", "ask"),
    "hold-days": ("2.5", 2.5),
    "urgent": ("override", "override"),
    "import-days": ("7", 7),
    "windows": ("'FREQ=DAILY PT1H UTC'", ["FREQ=DAILY PT1H UTC"]),
    "max-download-rate": ("60000", 60000),
    "keep-releases": ("4", 4),
    "fleet-dsn-file": ("g", Path("g")),
    "keep-days": ("1.5", 1.5),
    "windows-names": (None, True),
    "app-report-output": (None, True),
    "app-command": ("python -m 'a b' {port}", ["python", "-m", "a b", "{port}"]),
    "app-hook": ("", []),
    "app-url": ("http://h:{port}", "http://h:{port}"),
    "app-port": ("3", 3),
    "app-ca-file": ("c", Path("c")),
    "app-health-path": ("/h", "/h"),
    "app-start-timeout": ("11", 11.0),
    "app-health-timeout": ("12", 12.0),
    "app-health-interval": ("13", 13.0),
    "app-settle": ("14", 14.0),
    "app-stop-timeout": ("15", 15.0),
    "app-hook-timeout": ("16", 16.0),
    "app-restart-delay": ("17", 17.0),
    "app-restart-delay-limit": ("18", 18.0),
    "app-release-command": ("python3 ./serve", ["python3", "./serve"]),
    "app-migrate": ("skip", "skip"),
    "app-migrate-timeout": ("20", 20.0),
    "app-env": ("A=b=c", {"A": "b=c"}),
    "app-user": ("u", "u"),
    "slots-ports": ("3 8002", [3, 8002]),
    "slots-proxy": ("caddy", "caddy"),
    "slots-snippet": ("s", Path("s")),
    "slots-backend": ("b", "b"),
    "slots-reload": ("caddy reload", ["caddy", "reload"]),
    "slots-reload-timeout": ("21", 21.0),
    "slots-url": ("http://p", "http://p"),
    "slots-drain": ("22", 22.0),
    "slots-warm": ("23", 23.0),
    "database-dsn-file": ("f", Path("f")),
    "database-timeout": ("19", 19.0),
    "objects-redirect": ("https://c/{digest}", "https://c/{digest}"),
    "objects-downloads": ("24", 24),
}


def from_words(file: Path | None, *words: str) -> NodeConfig:
    """The settings of `serve` with those words."""
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return NodeConfig.load(file, **settings_from(serve.make_context("serve", list(words)).params))


def test_each_setting_has_a_flag_but_the_one_that_is_a_secret() -> None:
    assert [".".join(path) for path, _, flag in settings_and_flags() if not flag] == ["database.dsn"]
    flags = {flag: path for path, _, flag in settings_and_flags() if flag}
    assert flags.keys() == {f"--{name}" for name in GIVEN}
    words = [word for name, (text, _) in GIVEN.items() for word in (f"--{name}", text) if word is not None]
    loaded = from_words(None, *words)
    for name, (_, value) in GIVEN.items():
        found: object = loaded
        for part in flags[f"--{name}"]:
            found = getattr(found, part)
        assert found == value, name


def test_flags_of_a_table_win_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "unsigned_releases = true\n[app]\ncommand = ['x']\nsettle = 1\nenv = { A = 'a', B = 'b' }\n"
    file = written(tmp_path, f"role = 'public'\ndata = 'd'\n{text}")
    monkeypatch.setenv("ASHAT_NODE_APP__PORT", "4")
    monkeypatch.setenv("ASHAT_NODE_APP__SETTLE", "2")
    loaded = from_words(file, "--app-settle", "3", "--app-env", "B=x", "--app-env", "C=y", "--no-unsigned-releases")
    assert (loaded.app.command, loaded.app.port, loaded.app.settle, loaded.unsigned_releases) == (["x"], 4, 3, False)
    assert loaded.app.env == {"A": "a", "B": "x", "C": "y"}


def test_what_is_not_said(tmp_path: Path) -> None:
    loaded = NodeConfig.load(role="omega", data=tmp_path)
    assert (loaded.role, loaded.name, loaded.host, loaded.app.command) == (Role.OMEGA, "omega", "127.0.0.1", [])
    assert loaded.database.read_dsn() is None


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("prot = 1", ["{file}: there is no setting 'prot'; did you mean 'port'?"]),
        ("[app]\ncomand = ['x']", ["{file}: there is no setting 'app.comand'; did you mean 'command'?"]),
        (
            "windows = ['FREQ=DAILY PT1H Nowhere']",
            ["{file}: windows: 'Nowhere' is no time zone, such as Europe/Berlin or UTC."],
        ),
        ("[database]\nzzz = 1", ["{file}: there is no setting 'database.zzz'."]),
        ("port = 70000", ["{file}: port: input should be less than or equal to 65535."]),
        (
            "port = 'x'\nkeep_releases = 1",
            [
                "{file}: port: input should be a valid integer, unable to parse string as an integer.",
                "{file}: keep_releases: input should be greater than or equal to 2.",
            ],
        ),
        ("tls_cert = 'c.pem'", ["{file}: 'tls_cert' and 'tls_key' go together; set both or neither."]),
        (
            "[app]\ncommand = ['x']\nhook = ['y']\nurl = 'http://h'",
            ["{file}: app: has both 'command' and 'hook'; keep the one that starts the program."],
        ),
        (
            "[app]\nhook = 'y'",
            [
                "{file}: app: has a 'hook' but no 'url'; say where the program answers, so its health can be watched.",
            ],
        ),
        ("[database]\ndsn = 'a'\ndsn_file = 'b'", ["{file}: database: has both 'dsn' and 'dsn_file'; keep one."]),
    ],
)
def test_each_mistake_in_the_file_is_a_line(tmp_path: Path, text: str, lines: list[str]) -> None:
    file = written(tmp_path, f'role = "public"\ndata = "d"\n{text}\n')
    assert mistakes(file) == [line.format(file=file) for line in lines]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('redirect = "https://cdn.example.com/"', "lacks {digest}"),
        ('redirect = "https://cdn.example.com/{head}"', "lacks {digest}"),
        ('redirect = "https://cdn.example.com/{digest}/{name}"', "and nothing else"),
        ('redirect = "https://cdn.example.com/{digest"', "and nothing else"),
        ('redirect = "https://{digest}.example.com/"', "names one host"),
        ('redirect = "http://cdn.example.com/{digest}"', "begins with https://, not with http://"),
        ('redirect = "file:///srv/{digest}"', "names one host"),
        ('redirect = "s3://bucket/{digest}"', "begins with https://, not with s3://"),
        ('redirect = "//cdn.example.com/{digest}"', "begins with https://"),
        ('redirect = "cdn.example.com/{digest}"', "names one host"),
        ('redirect = "https:///{digest}"', "names one host"),
        ('redirect = "https://cdn.example.com:99999/{digest}"', "names one host"),
        ('redirect = "https://me:hunter2@cdn.example.com/{digest}"', "no user, no password"),
        ('redirect = "https://cdn.example.com/{digest}#x"', "no fragment"),
        ('redirect = "https://cdn.example.com/{digest}\\r\\nX: y"', "none that a URL cannot have"),
        ('redirect = "https://cdn.example.com/\\u0000{digest}"', "none that a URL cannot have"),
        ('redirect = "https://cdn.example.com/ {digest}"', "none that a URL cannot have"),
        ('redirect = "https://cdn.example.com/é/{digest}"', "none that a URL cannot have"),
        (f'redirect = "https://cdn.example.com/{"x" * 500}/{{digest}}"', "at most 500 characters"),
        ("redirect = 1", "objects.redirect: input should be a valid string"),
        ("downloads = 0", "objects.downloads: input should be greater than or equal to 1"),
        ("downloads = -1", "objects.downloads: input should be greater than or equal to 1"),
        ("downloads = 100001", "objects.downloads: input should be less than or equal to 100000"),
        ('downloads = "many"', "objects.downloads: input should be a valid integer"),
        ("download = 5", "there is no setting 'objects.download'; did you mean 'downloads'?"),
    ],
)
def test_where_objects_are_and_how_many_download_must_make_sense(tmp_path: Path, setting: str, words: str) -> None:
    file = written(tmp_path, f'role = "omega"\ndata = "d"\n[objects]\n{setting}\n')
    (line,) = mistakes(file)
    assert line.startswith(f"{file}: ")
    assert words in line
    assert "hunter2" not in line


def test_objects_elsewhere_are_for_omega_alone(tmp_path: Path) -> None:
    text = 'data = "d"\n[objects]\nredirect = "https://cdn.example.com/a/{head}/{tail}?v=1"\n'
    assert NodeConfig.load(written(tmp_path, f'role = "omega"\n{text}')).objects.downloads == 100
    assert "[objects] is for OMEGA alone" in mistakes(written(tmp_path, f'role = "public"\n{text}'))[0]
    for host in ("127.0.0.1:8", "localhost", "[::1]:8"):
        made = NodeConfig.load(role="omega", data=tmp_path, objects={"redirect": f"http://{host}/{{digest}}"})
        assert made.objects.redirect.startswith("http://")


def test_mistakes_elsewhere_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mistakes(None, role="moon", data="d") == ["--role: role: input should be 'public', 'omega' or 'mainframe'."]
    assert mistakes(None) == [
        "The setting 'role' is missing: give --role or put it in the file.",
        "The setting 'data' is missing: give --data or put it in the file.",
    ]
    assert "a mainframe needs 'omega'" in mistakes(None, role="mainframe", data="d")[0]
    monkeypatch.setenv("ASHAT_NODE_APP__SETTLE", "soon")
    assert mistakes(None, role="public", data="d")[0].startswith("ASHAT_NODE_APP__SETTLE: app.settle: input should be")
    monkeypatch.setenv("ASHAT_NODE_APP__ENV", "soon")
    assert mistakes(None, role="public", data="d")[1].startswith("ASHAT_NODE_APP__ENV: app.env: input should be")
    monkeypatch.setenv("ASHAT_NODE_APP__HOOK", "x '")
    assert mistakes(None, role="public", data="d") == [
        'ASHAT_NODE_APP__HOOK: "x \'" is not a command line: No closing quotation.'
    ]
    monkeypatch.setenv("ASHAT_NODE_APP", "soon")
    monkeypatch.delenv("ASHAT_NODE_APP__HOOK")
    assert mistakes(None, role="public", data="d")[0].startswith("ASHAT_NODE_APP: app: input should be")
    assert "cannot be read: No such file" in mistakes(tmp_path / "none.toml")[0]
    assert "is not TOML" in mistakes(written(tmp_path, "role = public"))[0]


def test_a_wrong_secret_is_not_repeated(tmp_path: Path) -> None:
    file = written(tmp_path, 'role = "public"\ndata = "d"\n[database]\ndsn = ["postgresql://kim:hunter2@h/d"]\n')
    assert "hunter2" not in mistakes(file)[0]


def test_a_secret_file_must_be_the_owners_alone(tmp_path: Path) -> None:
    secret = tmp_path / "dsn"
    secret.write_text("sqlite:///x\n")
    file = written(tmp_path, 'role = "public"\ndata = "d"\n[database]\ndsn_file = "dsn"\n')
    loaded = NodeConfig.load(file)
    secret.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        loaded.database.read_dsn()
    secret.chmod(0o600)
    dsn = loaded.database.read_dsn()
    assert dsn is not None
    assert dsn.get_secret_value() == "sqlite:///x"
    assert "sqlite" not in repr(loaded)
    secret.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        loaded.database.read_dsn()


def test_the_documented_settings_are_the_settings() -> None:
    documented = (ROOT / "docs" / "node.md").read_text()
    assert "\n".join(settings_table()) in documented


def test_init_makes_a_node_that_serves_with_the_token_it_printed(tmp_path: Path) -> None:
    data = tmp_path / "node"
    made = ashat_node("init", "--role", "omega", "--data", data, "--name", "production")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert len(secret.split()) == 1
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for name in ("node.toml", "tokens.json"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
        assert secret not in (data / name).read_text()
    token = TokenFile(data / "tokens.json").identify(secret)
    assert token is not None
    assert token.scopes == (Scope.PUSH, Scope.PROMOTE)
    loaded = NodeConfig.load(data / "node.toml")
    assert (loaded.role, loaded.name, loaded.data) == (Role.OMEGA, "production", data)

    again = ashat_node("init", "--role", "omega", "--data", data)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is there already" in again.stderr


def test_tokens_are_made_listed_and_revoked(tmp_path: Path) -> None:
    made = ashat_node("token", "add", "--data", tmp_path, "--scope", "read", "--scope", "push", "--name", "alpha")
    secret = made.stdout.strip()
    tokens = TokenFile(tmp_path / "tokens.json")
    token = tokens.identify(secret)
    assert token is not None
    assert tokens.identify(secret + "x") is None
    assert tokens.identify("\ud800") is None
    listed = ashat_node("token", "list", "--data", tmp_path)
    assert listed.stdout.split() == [token.id, "read,push", *listed.stdout.split()[2:4], "alpha"]
    assert secret not in listed.stdout
    assert ashat_node("token", "revoke", token.id, "--data", tmp_path).returncode == 0
    assert tokens.all() == []
    unknown = ashat_node("token", "revoke", token.id, "--data", tmp_path)
    assert (unknown.returncode, unknown.stderr) == (
        2,
        f"ashat-node: There is no token '{token.id}'; see: ashat-node token list\n",
    )


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_secret_goes_to_a_new_file_that_only_its_owner_reads(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    data = tmp_path / "omega"
    assert run("init", "--role", "omega", "--data", str(data), "--out", str(tmp_path / "init"))[0] == 0
    first = TokenFile(data / "tokens.json").all()[0].id
    made = {
        "token": ("token", "add", "--scope", "read"),
        "rotated": ("token", "rotate", first),
        "licence": ("licence", "add", "--name", "customer-1"),
    }
    before = os.umask(umask)
    try:
        written = {
            name: run(*words, "--data", str(data), "--out", str(tmp_path / name)) for name, words in made.items()
        }
    finally:
        os.umask(before)
    for name, (code, out, err) in written.items():
        secret = (tmp_path / name).read_text()
        assert (code, out, secret.count("\n"), len(secret.split())) == (0, "", 1, 1), err
        assert secret.strip() not in err
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert TokenFile(data / "tokens.json").identify((tmp_path / "token").read_text().strip()) is not None


def test_a_secret_replaces_no_file_and_none_is_made_that_cannot_be_written(tmp_path: Path, run: Run) -> None:
    data, kept = tmp_path / "omega", tmp_path / "kept"
    kept.write_text("mine")
    aside = tmp_path / "link"
    aside.symlink_to(tmp_path / "elsewhere")
    assert run("init", "--role", "omega", "--data", str(data), "--out", str(kept))[0] == 2
    assert not data.exists()
    assert run("init", "--role", "omega", "--data", str(data))[0] == 0
    for place, why in ((kept, "is there already"), (aside, "is there already"), (tmp_path / "no" / "file", "written")):
        for words in (("token", "add", "--scope", "read"), ("licence", "add", "--name", "customer-1")):
            code, out, err = run(*words, "--data", str(data), "--out", str(place))
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert why in err
    assert kept.read_text() == "mine"
    assert len(TokenFile(data / "tokens.json").all()) == 1
    assert "no licence yet" in run("licence", "list", "--data", str(data))[1]
    refused = tmp_path / "refused"
    assert run("token", "rotate", "nobody", "--data", str(data), "--out", str(refused))[0] == 2
    assert not refused.exists()


def test_mistakes_of_the_command_are_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    public = ("serve", "--role", "public", "--data", str(tmp_path))
    for words, code, text in [
        (("serve", "--port", "x"), 2, "Invalid value for '--port'"),
        (("serve", "--role", "public"), 2, "The setting 'data' is missing"),
        ((*public, "--app-port", "x"), 2, "Invalid value for '--app-port'"),
        ((*public, "--app-port", "70000"), 2, "--app-port: app.port: input should be less than or equal to 65535."),
        ((*public, "--app-hook", "x"), 2, "--app-hook: app: has a 'hook' but no 'url'"),
        ((*public, "--app-command", "x '"), 2, '--app-command: "x \'" is not a command line'),
        ((*public, "--app-env", "A"), 2, "--app-env: give NAME=VALUE, not 'A'."),
        ((*public, "--database-dsn", "sqlite://"), 2, "No such option: --database-dsn"),
        (("status", "--data", str(tmp_path)), 1, "No node has served from"),
        (("status",), 2, "Give --data DIR or --config FILE"),
        (("init", "--role", "mainframe", "--data", str(tmp_path / "m")), 2, "give its address with --omega URL"),
        (("token", "add", "--data", str(tmp_path), "--scope", "all"), 2, "Invalid value for '--scope'"),
        (("fly",), 2, "No such command 'fly'"),
    ]:
        monkeypatch.setattr(sys, "argv", ["ashat-node", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert (ended.value.code, told.count("\n")) == (code, 1), told
        assert told.startswith("ashat-node: ")
        assert text in told


def test_what_does_not_work_here_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    TokenFile(tmp_path / "ok" / "tokens.json").add("", [Scope.READ])
    tls = ("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "cert.pem")
    for words, code, text in [
        (("--data", tmp_path / "new"), 2, "There is no token in"),
        (("--data", tmp_path / "ok", *tls), 2, "cannot be used"),
        (("--data", tmp_path / "cert.pem" / "x"), 2, "cannot be used: Not a directory"),
        (("--data", tmp_path / "ok", "--host", "192.0.2.1"), 1, "cannot serve on 192.0.2.1:0"),
    ]:
        done = ashat_node("serve", "--role", "public", "--port", "0", *words)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
        assert done.stderr.startswith("ashat-node: ")
        assert text in done.stderr


def test_a_free_port_is_printed_and_kept_and_status_tells(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", settings={"port": 0}, start=False) as node:
        node.start(wait=False)
        address = node.wait_for_address()
        assert address["port"] != 0
        assert f"ashat-node: public 'public' serves on {address['url']}, data in {node.data}\n" in node.log()
        up = ashat_node("status", "--config", node.config)
        assert (up.returncode, up.stdout) == (
            0,
            f"public 'public' serves on {address['url']}, pid {node.pid}\nruns nothing\n",
        )
        assert node.stop() == 0
        down = ashat_node("status", "--data", node.data)
        assert (down.returncode, down.stdout) == (1, "public 'public' is not running\nruns nothing\n")
        assert json.loads((node.data / "node.json").read_text()) == address


def test_status_waits_for_a_node_that_starts_and_not_for_ever(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", start=False) as node:
        never = ashat_node("status", "--data", node.data, "--wait", "0.2")
        assert (never.returncode, "No node has served from" in never.stderr) == (1, True)
        node.start(wait=False)
        up = ashat_node("status", "--config", node.config, "--wait", "90")
        assert (up.returncode, up.stdout.partition(",")[0]) == (0, f"public 'public' serves on {node.url}")
        node.wait_until_up()
        node.stop()
        down = ashat_node("status", "--config", node.config, "--wait", "0.2")
        assert (down.returncode, down.stdout.splitlines()[0]) == (1, "public 'public' is not running")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda address: address.mkdir(), "cannot be read (Is a directory), so nobody knows whether the node serves"),
        (lambda address: address.write_text("[]"), "is damaged"),
        (lambda address: address.write_text("{"), "is damaged"),
    ],
)
def test_status_does_not_say_that_no_node_served_where_it_cannot_tell(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(tmp_path / "node.json")
    told = ashat_node("status", "--data", tmp_path)
    assert (told.returncode, says in told.stderr, told.stderr.count("\n")) == (1, True, 1)
