"""docs/limits.md is true: its tables name every reader, and every figure is the constant beside it."""

from __future__ import annotations

import importlib
import re

from scripts.dependencies import ROOT
from tests.support.readers import READERS

_UNITS = {"KiB": 1024, "MiB": 1024**2, "MB": 10**6, "": 1}


def rows(heading: str) -> list[list[str]]:
    section = (ROOT / "docs/limits.md").read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def figure(text: str) -> float:
    number, _, unit = text.partition(" ")
    return float(number.replace(",", "")) * _UNITS[unit]


def test_each_reader_is_listed_with_what_it_may_cost() -> None:
    listed = rows("What a reader may cost")

    assert [row[0] for row in listed] == [reader.name for reader in READERS]
    for (_, most, memory, memory_limit, seconds, seconds_limit), reader in zip(listed, READERS, strict=True):
        assert figure(most) == reader.most, reader.name
        assert (memory_limit, seconds_limit) == (f"{reader.limit_mb} MB", f"{reader.limit_s} s")
        assert float(memory.removesuffix(" MB")) <= reader.limit_mb
        assert float(seconds.removesuffix(" s")) <= reader.limit_s


def test_each_limit_is_the_constant_beside_it() -> None:
    headings = ("Documents", "Releases", "What verification reads", "What the gate shows")
    listed = [row for heading in headings for row in rows(heading)]

    assert len(listed) >= 20
    for what, limit, constant in listed:
        module, _, name = re.fullmatch(r"`([\w.]+)`", constant)[1].rpartition(".")  # type: ignore[index]
        assert getattr(importlib.import_module(module), name) == figure(limit), what


# What these parse came from this program itself: its own database, its own children, its own package.
OWN = {
    "ashat/audit": {"auditor.py", "export.py"},
    "ashat/common": {"documents.py"},
    "ashat/ledger": {"index.py", "ledger.py", "remembered.py"},
    "ashat/node/api": {"middleware.py"},
    "ashat/node/app_process": {"keeper.py", "kept.py"},
    "ashat/node/logs": {"change_log_audit.py"},
    "ashat/node/omega": {"trust.py"},
    "ashat/node/operations": {"records.py"},
    "ashat/receipts": {"write.py"},
    "ashat/trust/release": {"provenance.py"},
    "tasks/checks/kit": {"schema_sandbox.py", "schema_worker.py"},
    "tasks/selftest/faults": {"api.py"},
    "tasks/verify": {"proofs.py"},
}


def test_whoever_else_reads_json_or_toml_reads_it_within_bounds() -> None:
    parses = re.compile(r"\bjson(?:lib)?\.loads?\(|\btomllib\.")
    found: dict[str, set[str]] = {}
    for package in ("ashat", "blocks", "flows", "tasks"):
        for path in (ROOT / package).rglob("*.py"):
            if parses.search(path.read_text("utf-8")):
                found.setdefault(str(path.parent.relative_to(ROOT)), set()).add(path.name)

    assert found == OWN
