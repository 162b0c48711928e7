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
    listed = [row for heading in ("Documents", "Releases", "What verification reads") for row in rows(heading)]

    assert len(listed) >= 20
    for what, limit, constant in listed:
        module, _, name = re.fullmatch(r"`([\w.]+)`", constant)[1].rpartition(".")  # type: ignore[index]
        assert getattr(importlib.import_module(module), name) == figure(limit), what
