"""JSON and TOML of strangers: what is read is what Python's own parsers read, and nothing costs more than a bound."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ashat.common.documents import DEPTH, KEY_PARTS, load_json, load_toml, read_json
from ashat.errors import DocumentError

LIMIT = 2 * 1024 * 1024
DOTS = "a." * 100


@pytest.mark.parametrize(
    "text",
    [
        f'a = "{DOTS}"',
        f"# {DOTS}\na = 1",
        f'a = """\n{DOTS}\n"""\nb.c = 1',
        f"a = '''\n{DOTS}'''\nb = 1",
        f"a = '{DOTS}' # {DOTS}",
        'a = "\\"" # "\nb.c = 1',
        'a = """x\\""" y.z"""',
        'a = """"x"""\nb = """""y"""""',
        f"a = [{'1.5, ' * 100}]",
        "a = 1979-05-27T00:32:00.999999-07:00",
        "'a.b'.\"c.d\" = {e.f = 1}",
        ".".join(["a"] * KEY_PARTS) + " = 1",
        f"a = 9223372036854775807\nb = -{2**63}\nc = 0x7fffffffffffffff",
        "[a.b]\nc = 1\n[[d.e]]\nf = [[], {}]\r\n",
        f"a = {'[' * (DEPTH - 1)}{']' * (DEPTH - 1)}",
    ],
)
def test_toml_that_people_write_is_read_as_tomllib_reads_it(text: str) -> None:
    assert load_toml(text, limit=LIMIT) == load_toml(text.encode(), limit=LIMIT) == tomllib.loads(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a" + ".a" * KEY_PARTS + " = 1", r"a key has more than 32 parts \(at line 1, column"),
        ("\n\n[" + "a." * 120_000 + "a]", r"a key has more than 32 parts \(at line 3, column"),
        ("[[a" + " . a" * 120_000 + "]]", "a key has more than 32 parts"),
        ("x = {'a'" + '."b"' * 1_000 + " = 1}", "a key has more than 32 parts"),
        ("a = " + "9" * 5_000, r"a number has more than 300 digits \(at line 1"),
        ("a = -" + "1_" * 5_000 + "1", "a number has more than 300 digits"),
        ("a = 0x" + "f" * 5_000, "a number has more than 300 digits"),
        ("a = 1." + "1" * 5_000, "a number has more than 300 digits"),
        ("a.b = [{c = 0x1ffffffffffffffff}]", "an integer has more than 64 bits"),
        ("a = " + "[" * 5_000, "nested too deeply"),
        ("a = " + "{a = " * 5_000, "nested too deeply"),
        (f"a = {'[' * DEPTH}{']' * DEPTH}", "nested too deeply"),
        ("a = [" + "{}," * 130_000 + "]", "more than 100000 tables"),
        ("a = [" + "1," * 500_001 + "]", "more than 500000 lines and values"),
        ('"' + '\\"' * 100_000, "Unterminated string"),
        ('a = """' + 'b""' * 100_000, "Unterminated string"),
        ("a = [" + " " * 500_000, "Invalid value"),
        ("a = 1", "it has more than 4 bytes"),
        ("a = '\ud800'", "half a character"),
        (b"a = 1\nb = '\xff'", "not UTF-8 at byte 11"),
        ("a = 2026-02-30", "Invalid date"),
    ],
)
def test_toml_that_nobody_means_is_refused_in_one_line(text: str | bytes, why: str) -> None:
    with pytest.raises(DocumentError, match=why) as refused:
        load_toml(text, limit=4 if text == "a = 1" else LIMIT)

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("raw", [b'{"a": [1, 2.5, null, "\\ud83d\\ude00", "\\\\ud800"]}', b"\xef\xbb\xbf[-1e300]"])
def test_json_that_programs_write_is_read_as_python_reads_it(raw: bytes) -> None:
    assert load_json(raw, limit=LIMIT) == json.loads(raw)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("1" * 301, "a number has 301 digits"),
        ("[-" + "9" * 5_000 + "]", "a number has 5001 digits"),
        ("[1." + "1" * 5_000 + "]", "a number has 5002 digits"),
        ("1e400", "the number 1e400 is larger than any"),
        ("[NaN]", "NaN is no JSON"),
        ("-Infinity", "-Infinity is no JSON"),
        ('"\\ud800"', "half a character"),
        ('{"\\uDFFF": 1}', "half a character"),
        ('"\ud800"', "half a character"),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), "nested too deeply"),
        ("[1", "Expecting ',' delimiter"),
        ("", "Expecting value"),
        ("[]   ", "it has more than 4 bytes"),
    ],
)
def test_json_that_nobody_means_is_refused_in_one_line(raw: bytes | str, why: str) -> None:
    with pytest.raises(DocumentError, match=why) as refused:
        load_json(raw, limit=4 if raw == "[]   " else LIMIT)

    assert "\n" not in str(refused.value)


def test_a_file_is_not_read_beyond_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(b"[" + b" " * 100 + b"]")

    assert read_json(file, limit=102) == []
    with pytest.raises(OSError, match="more than 101 bytes"):
        read_json(file, limit=101)


_TOML = st.text(st.sampled_from("ab.=\"'\\#[]{},\n\r 0_9x-+eT:z\u00e9"), max_size=80)


@given(_TOML)
@example('a="""""')
@example("'''a'''=1")
@example("a=0_")
def test_the_look_before_parsing_changes_nothing_of_what_tomllib_says(text: str) -> None:
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(DocumentError):
            load_toml(text, limit=LIMIT)
    else:
        assert repr(load_toml(text, limit=LIMIT)) == repr(expected)


@given(st.binary(max_size=60) | st.text(st.sampled_from('[]{},:"\\u0d8eE+-.1nulltrefasNI \n'), max_size=60))
def test_any_bytes_are_json_or_one_error(raw: bytes | str) -> None:
    try:
        json.dumps(load_json(raw, limit=LIMIT), allow_nan=False, ensure_ascii=False).encode()
    except DocumentError as error:
        assert str(error)  # noqa: PT017 - nothing else may come out
