"""No bytes of a stranger cost more than a bound: every reader with its bombs, and with bytes that nobody thought of."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.readers import GOOD, READERS, Reader

ROOT = Path(__file__).parents[2]
NAMES = [reader.name for reader in READERS]
_ALL_SECONDS = 1800


@pytest.fixture(scope="module")
def measured() -> list[dict[str, Any]]:
    """What `bench/limits.py` prints: each reader with each of its bombs, within a limit of its memory and time."""
    done = subprocess.run(
        [sys.executable, "bench/limits.py", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_ALL_SECONDS,
        check=False,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (0 if all(row["ok"] for row in found) else 1), done.stderr
    return found


@pytest.mark.timeout(_ALL_SECONDS + 60)  # the first of them waits for all bombs
@pytest.mark.parametrize("reader", READERS, ids=NAMES)
def test_a_bomb_costs_no_more_than_its_reader_may(reader: Reader, measured: list[dict[str, Any]]) -> None:
    rows = [row for row in measured if row["reader"] == reader.name]

    assert {row["bomb"] for row in rows} == set(reader.bombs)
    assert [row for row in rows if not row["ok"]] == []
    assert all((row["limit_mb"], row["limit_s"]) == (reader.limit_mb, reader.limit_s) for row in rows)
    assert max(row["input_bytes"] for row in rows) > 0.9 * reader.most


def test_a_reader_beyond_its_limits_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from bench import limits

    def greedy(raw: bytes) -> object:
        return [bytes(1 << 20) for _ in range(256)]

    def raising(raw: bytes) -> object:
        raise KeyError(raw)

    def busy(raw: bytes) -> object:
        return sum(range(1 << 40))

    def reader(read: Any, limit_s: int = 5) -> Reader:
        return Reader("r", read, (ValueError,), 1, 64, limit_s, {"one": lambda size: b"x"})

    assert [row["ok"] for row in limits.measured(reader(len))] == [True]
    for bad, said in ((reader(greedy), "MemoryError"), (reader(raising), "KeyError"), (reader(busy, 1), "SIGXCPU")):
        (row,) = limits.measured(bad)
        assert not row["ok"]
        assert said in row["said"]


_SIZE = 2_000
_LETTERS = st.sampled_from("{}[]()<>\"'\\/.,:;=#-+_*%@!~^ \t\r\n\0aA0eEuxn9\u0085\u2028\u202e\u00e9\U0001f600")
_ODD = st.sampled_from(
    [
        *["null", "true", "[]", "{}", "[[]]", "-1", "0", "1.5", "-1e308", "9223372036854775808"],
        "9" * 299,
        f'"{"1" * 5000}"',
    ]
).map(json.loads) | st.sampled_from(["", "a", "\u202e", "9999-12-31T23:59:59Z"])


def _places(value: Any) -> list[Any]:
    """List the objects and lists of a value, itself first."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(place for item in below for place in _places(item))] if isinstance(value, (dict, list)) else []


def _spelled(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@st.composite
def _altered(draw: st.DrawFn, good: Any) -> bytes:
    """Draw a value that differs from a good one in up to three places."""
    value = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(_places(value)))
        if isinstance(place, list):
            place[:] = draw(st.sampled_from([[], place * 2, [*place, draw(_ODD)], [draw(_ODD)]]))
        else:
            place[draw(st.sampled_from([*place, "another"]))] = draw(_ODD)
    return _spelled(value)


@st.composite
def _cut(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Draw the beginning and the end of a text with something else between them."""
    raw = draw(st.sampled_from(seeds))
    at = draw(st.integers(0, len(raw)))
    end = draw(st.integers(at, len(raw)))
    piece = draw(st.binary(max_size=20) | st.text(_LETTERS, max_size=40).map(str.encode))
    return raw[:at] + piece + raw[end:]


@pytest.mark.parametrize("reader", READERS, ids=NAMES)
def test_any_bytes_are_read_or_refused_by_the_one_error(reader: Reader) -> None:
    good = GOOD.get(reader.name, {})
    plain, altered = (good, st.just(good)) if isinstance(good, bytes) else (_spelled(good), _altered(good))
    bombs = [bomb(_SIZE) for bomb in reader.bombs.values()]  # made once: one of them compresses 4 GB

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def look(data: st.DataObject) -> None:
        raw = data.draw(altered | _cut([plain]) | _cut(bombs))
        with suppress(*reader.refuses):
            reader.read(raw)

    look()
