"""`deploy trust`: a key of one's own, who approves, and what the one-person mode does not protect."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from ashat.cli.main import run
from ashat.client.http import Transport
from ashat.node.omega.trust import OmegaTrust
from ashat.protocol.messages import SignedRelease, TrustMetadata
from ashat.trust.authority.authority import Authority
from ashat.trust.keys.files import load_signer
from ashat.trust.release.machine_keys import machine_signer
from ashat.trust.tuf.metadata import BUILDER, PRODUCTION, VERIFIER, build_production, sign
from ashat.trust.update_client.client import ReleaseClient
from ashat.trust.update_client.fetcher import RemoteRepository
from tests.support.builders.signers import provenance
from tests.support.builders.trust_world import document, serving
from tests.support.processes.deploy_cli import deploy_on_terminal
from tests.support.processes.node_cli import ashat_node

PASSPHRASE = "five words are long enough"


@pytest.fixture
def omega_keys(tmp_path: Path) -> list[str]:
    """What `ashat-node trust-keys` prints on OMEGA, as words for `deploy trust init`."""
    data = tmp_path / "omega"
    data.mkdir()
    keys = ashat_node("trust-keys", "--data", data)
    keys.check_returncode()
    (tmp_path / "omega-keys.json").write_text(keys.stdout)
    return ["--omega-keys", str(tmp_path / "omega-keys.json")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASHAT_KEY_PASSPHRASE", PASSPHRASE)
    return tmp_path / "home"


def _people(home: Path, *names: str) -> list[str]:
    words = []
    for name in names:
        assert run(["trust", "keygen", name]) == 0
        words += ["--approver", f"{name}={home}/trust/keys/{name}.pub"]
    return words


def test_the_one_person_mode_says_what_it_does_not_protect_and_begins_a_repository(
    home: Path, tmp_path: Path, omega_keys: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["trust", "init", "--dry-run"]) == 0
    assert "Would be set up" in capsys.readouterr().out
    assert not (home / "trust").exists()
    assert run(["trust", "init", *omega_keys]) == 0
    assert "It does not protect from whoever can read ASHAT_HOME here" in capsys.readouterr().out
    assert run(["trust", "status"]) == 0
    told = capsys.readouterr().out
    assert "One-person mode" in told
    assert told.startswith("omega:\n  One-person mode")
    assert "Built by builder: else a release is refused." in told
    assert "OMEGA was not asked what it keeps: the control plane does not run here." in told
    assert run(["trust", "status", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["targets"].items()
    assert (listed[0], listed[1]["mode"], listed[1]["omega"]["asked"]) == ("omega", "one-person", False)
    assert listed[1]["omega"]["handed_over"] is None, "nobody knows"
    assert run(["trust", "init", "--as", "omega-eu", *omega_keys]) == 0
    capsys.readouterr()
    assert run(["trust", "status"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")] == [
        "omega:",
        "omega-eu:",
    ]
    assert run(["trust", "init", *omega_keys]) == 2
    assert capsys.readouterr().err.startswith("❌ Trust is set up already")
    keys = sorted((home / "trust/authority/omega/keys").glob("*.pem"))
    assert [key.stem for key in keys] == ["approver", "root", "targets"]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    authority = Authority(home)
    state = authority.read()
    assert state.complete
    trust = OmegaTrust(tmp_path / "omega" / "trust")
    root, targets = state.root.to_bytes(), state.targets.to_bytes()
    trust.install(TrustMetadata(target="omega", root=root.decode(), targets=targets.decode()))
    builder, verifier = (machine_signer(home, role) for role in (BUILDER, VERIFIER))
    text = provenance(builder, verifier, document(1).bundle, document(1).evidence)
    made = document(1, provenance=sha256(text.encode()).hexdigest())
    approval = build_production(None, made, lifetime=999, now=datetime.now(UTC))
    assert sign(state.targets.signed, PRODUCTION, approval, authority.embedded_approver()).complete
    signed = approval.to_bytes().decode()
    trust.publish(SignedRelease(document=made.to_bytes().decode(), production=signed, provenance=text))
    with serving(trust.repository.directory) as server, Transport(server.url) as transport:
        client = ReleaseClient(RemoteRepository(transport), tmp_path / "cache", root=root, target="omega")
        assert client.latest_release("stable") == made


def test_people_set_it_up_and_each_signs(home: Path, omega_keys: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = _people(home, "kim", "lee", "noa")
    assert run(["trust", "init", *words, *omega_keys]) == 0
    assert "2 of 3 approve each release" in capsys.readouterr().out
    assert run(["trust", "status", "--as", "omega", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["mode"], told["threshold"], told["complete"]) == ("approvers", 2, False)
    assert told["roles"]["root"]["missing"] == ["kim", "lee", "noa"]
    keys = home / "trust/keys"
    assert run(["trust", "sign", "--key", str(keys / "lee.pem")]) == 0
    assert "signed by 1 of 2 needed (lee); missing: kim, noa" in capsys.readouterr().out
    assert run(["trust", "sign", "--key", str(keys / "lee.pem")]) == 0
    assert not Authority(home).read().complete
    assert run(["trust", "sign", "--key", str(keys / "noa.pem")]) == 0
    assert Authority(home).read().complete
    assert list((home / "trust/authority/omega/keys").iterdir()) == [], "nobody's private key lies here"
    _people(home, "eve")
    assert run(["trust", "sign", "--key", str(keys / "eve.pem")]) == 1
    assert "signs neither root nor targets" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--threshold", "2"], 2, "--threshold counts approvers"),
        (["--approver", "kim"], 2, "write it as NAME=FILE.pub"),
        (["--approver", "kim={keys}/none.pub"], 1, "cannot be read"),
        (["--approver", "kim={keys}/kim.pem"], 1, "holds a private key"),
        (["--approver", "kim={keys}/kim.pub", "--threshold", "2"], 1, "the threshold is 1 to 1"),
        (["--approver", "kim={keys}/kim.pub", "--approver", "lee={keys}/kim.pub"], 1, "one and the same key"),
        (["--builder", "alpha"], 2, "--builder 'alpha': write it as NAME=FILE.pub"),
        (["--approver", "kim={keys}/kim.pub", "--builder", "a={keys}/kim.pub"], 1, "builder: a has the key of kim"),
    ],
)
def test_what_would_protect_nothing_is_refused_in_a_line(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    _people(home, "kim")
    capsys.readouterr()
    assert run(["trust", "init", *(word.format(keys=home / "trust/keys") for word in words)]) == code
    shown = capsys.readouterr().err
    assert told in shown
    assert len(shown.splitlines()) == 1
    assert not (home / "trust/authority").exists()


def test_machines_tell_their_public_keys_and_people_say_which_count(
    home: Path, tmp_path: Path, omega_keys: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = _people(home, "kim")
    for role in ("builder", "verifier"):
        capsys.readouterr()
        assert run(["trust", f"{role}-key"]) == 0
        told = capsys.readouterr().out
        assert told.startswith("-----BEGIN PUBLIC KEY-----")
        (tmp_path / f"{role}.pub").write_text(told)
        words += [f"--{role}", f"alpha={tmp_path / role}.pub"]
        assert run(["trust", f"{role}-key"]) == 0
        assert capsys.readouterr().out == told, "the key is made once"
    assert run(["trust", "init", *words, *omega_keys]) == 0
    assert "Built by alpha: else a release is refused." in capsys.readouterr().out
    assert run(["trust", "status", "--as", "omega", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["builders"], told["verifiers"]) == (["alpha"], ["alpha"])


def test_without_trust_or_without_a_passphrase_a_line_says_so(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["trust", "status"]) == 1
    assert "run: deploy trust init" in capsys.readouterr().err
    monkeypatch.delenv("ASHAT_KEY_PASSPHRASE")
    assert run(["trust", "keygen", "kim"]) == 2
    assert "nobody can be asked: give --passphrase-file" in capsys.readouterr().err
    assert run(["trust", "keygen", "../kim"]) == 1
    assert "cannot name a key" in capsys.readouterr().err


def test_a_passphrase_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    home = tmp_path / "home"
    typed = [("A passphrase for kim", PASSPHRASE), ("Repeat", PASSPHRASE)]
    code, shown = deploy_on_terminal(home, "trust", "keygen", "kim", typed=typed, secret=True)
    assert code == 0, shown
    assert PASSPHRASE not in shown
    load_signer(home / "trust/keys/kim.pem", lambda: PASSPHRASE)
