"""Each command that changes a server, the record, or what Prefect keeps takes `--dry-run`; the others are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ashat.cli.main import commands, run

READ = frozenset(
    {
        *("audit verify", "audit checkpoint", "audit export", "completion", "doctor", "evidence", "export", "fleet"),
        *("fleet at", "fleet show", "fleet watch", "freeze list", "help", "history", "inbox", "licences list"),
        *("licences show", "logs", "metrics", "notify list", "open", "receipt", "rollout compare", "rollout list"),
        *("rollout report", "rollout show", "sbom", "schedule list", "servers", "sign", "stats", "status"),
        *("tracker list", "trust builder-key", "trust status", "trust verifier-key", "ui", "wait", "window list"),
    }
)
# They start and stop processes of this machine, send a message to be looked at, or write the file that is named.
HERE = frozenset(
    {
        *("backup", "demo", "down", "init", "notify test", "tracker test", "team init", "team server", "team services"),
        *("team upgrade", "trust keygen", "trust sign", "up", "worker"),
    }
)


def _leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None) or {}
    for name, found in below.items():
        yield from _leaves(found, (*path, name))
    if path and (not below or command.invoke_without_command):
        yield " ".join(path), command


def test_each_command_reads_or_acts_here_or_takes_dry_run() -> None:
    leaves = dict(_leaves(commands()))
    dry = {name for name, command in leaves.items() if any("--dry-run" in given.opts for given in command.params)}
    assert leaves.keys() - dry == READ | HERE
    assert {"push", "verify", "approve", "rollback", "cancel"} <= dry


@pytest.mark.parametrize(
    "words",
    [
        ("push", "UPD-1", "What it brings"),
        ("configure", "public", "http://127.0.0.1:1", "staging"),
        ("fleet", "label", "acme", "ring=internal"),
        ("schedule", "pause", "weeknights"),
    ],
)
def test_a_dry_run_starts_no_control_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run([*words, "--dry-run"]) == 1
    told = capsys.readouterr().err
    assert told == "❌ The control plane does not run, and a dry run starts none: deploy up.\n"
    assert not (tmp_path / "home").exists()
