"""A newcomer walks through the guide on ALPHA and three servers, typing what it shows in its order: from nothing to a
release and back, and then a backup and its return."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.drivers.doc_console import Block, blocks
from tests.support.needs import requires_openssl, requires_sqlite3
from tests.support.processes import docs_stack
from tests.support.processes.guide_machines import SERVERS, Machines
from tests.support.processes.node import ROOT

pytestmark = [pytest.mark.xdist_group("guide-walk"), pytest.mark.timeout(900), requires_openssl, requires_sqlite3]
BACKUP, RESTORE = "Making a backup by hand", "Restoring what was made by hand"
STEPS = (
    "1. Install the node",
    "2. Configure Public and OMEGA",
    "3. Say how the program runs",
    "4. TLS",
    "5. Serve it under systemd",
    "6. Tell deploy",
    "7. The Mainframes",
    "8. The first release",
)


@cache
def shown() -> list[Block]:
    text = (ROOT / "docs/guide.md").read_text("utf-8")
    return [block for block in blocks(text) if block.section in (*STEPS, BACKUP, RESTORE)]


def steps() -> list[Block]:
    return [block for block in shown() if block.section in STEPS]


def machines_of(block: Block) -> list[str]:
    """On which machines a block is typed: its first line says so; on none where it shows a file."""
    named = re.fullmatch(r"# ((?:alpha|public|omega|mainframe)(?:, \w+)*)", block.lines[0])
    return named[1].split(", ") if block.language == "sh" and named else []


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    unit = next(block for block in shown() if block.lines[0] == "# /etc/systemd/system/ashat-node.service")
    serve = next(line for line in unit.lines if line.startswith("ExecStart=")).removeprefix("ExecStart=")
    with Machines(tmp_path_factory.mktemp("machines"), serve) as made:
        yield made
        docs_stack.end(made.homes["alpha"])


def test_each_block_says_where_it_is_typed_and_the_steps_are_the_guides() -> None:
    assert list(dict.fromkeys(block.section for block in steps())) == list(STEPS)
    unsaid = [block.line for block in steps() if block.language == "sh" and not machines_of(block)]
    files = [block.line for block in steps() if block.lines[0] == "#!/bin/sh"]
    assert unsaid == files


def test_from_nothing_to_an_approved_release_on_a_mainframe_and_back(machines: Machines) -> None:
    alpha = machines.homes["alpha"]
    printed: dict[tuple[str, str], str] = {}
    with docs_stack.Forks(alpha) as forks:
        for block in steps():
            if block.section == STEPS[2] and block.language == "toml":
                _settings(machines, block)
            for machine in machines_of(block):
                if machine == "mainframe" and "ca_file" in block.lines[1]:
                    machines.put(_program(), "mainframe", without=["url"])
                if "RAOS-1" in str(block.lines):
                    docs_stack.soak_no_longer(alpha)
                if "RAOS-2" in str(block.lines):
                    docs_stack.compare_no_more(alpha)
                said = machines.type(block, machine, "raos" if block.section == STEPS[7] else ".")
                printed[block.section, machine] = said
                forks.prepare()
                if "RAOS-1" in str(block.lines):
                    assert "1 of 1 Mainframe runs it" in said
                    assert "⏪" not in said
    back = printed[STEPS[7], "alpha"]
    assert "⏪ Deployment 'RAOS-2' rolled back successfully." in back
    assert "serves on https://" in printed[STEPS[4], "omega"]
    assert "No release can be installed" not in machines.log("mainframe")
    for server in SERVERS:
        assert "of RAOS-1" in _runs(machines, server)


def _runs(machines: Machines, server: str) -> str:
    return machines.type(Block("sh", "", 0, (f"# {server}", _status())), server)


def test_what_was_backed_up_is_what_comes_back(machines: Machines) -> None:
    alpha = machines.homes["alpha"]
    before = deployments(alpha)
    for block in shown():
        if block.section == BACKUP:
            for machine in machines_of(block):
                machines.type(block, machine)
    docs_stack.end(alpha)
    (alpha / ".ashat").rename(alpha / ".ashat-lost")
    printed = {}
    for block in shown():
        if block.section != RESTORE:
            continue
        for machine in machines_of(block):
            if machine in SERVERS:
                _lose(machines, machine)
            printed[machine] = machines.type(block, machine)
    assert all("of RAOS-1" in printed[server] for server in SERVERS)
    assert "✅ Every event fits." in printed["alpha"]
    assert "wrong" not in printed["alpha"].splitlines()[-1]
    assert deployments(alpha) == before
    with contextlib.closing(sqlite3.connect(alpha / ".ashat-lost" / "ledger.db")) as lost:
        assert lost.execute("SELECT count(*) FROM events").fetchone()[0] > 0
    store = Path(machines.here("/var/lib/ashat/node/store", "omega"))
    assert any(path.is_file() for path in store.rglob("*"))


def deployments(home: Path) -> object:
    """What `deploy history` says."""
    words = ["deploy", "history", "--json"]
    return json.loads(subprocess.check_output(words, env=docs_stack.environment(home), cwd=home))


def _lose(machines: Machines, server: str) -> None:
    """A server's disk is gone: all that the backup does not hold, too."""
    subprocess.run(["systemctl", "stop", "ashat-node"], env=docs_stack.environment(machines.homes[server]), check=True)
    node = Path(machines.here("/var/lib/ashat/node", server))
    node.rename(node.with_name("lost"))


def _settings(machines: Machines, block: Block) -> None:
    """Put settings that the guide shows where it says; one of the two ways in which a program runs is taken."""
    if block.lines[0] == "[database]":
        for machine in ("public", "omega"):
            machines.put(block, machine)
    elif block == _program():
        machines.put(block, "public")
        machines.put(block, "omega", without=["url"])


def _program() -> Block:
    return next(block for block in shown() if block.lines[:1] == ("[app]",) and block.lines[1].startswith("command"))


def _status() -> str:
    lines = [line for block in shown() if "mainframe" in machines_of(block) for line in block.lines]
    return next(line for line in lines if "ashat-node status" in line)
