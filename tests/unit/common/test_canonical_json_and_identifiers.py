"""Canonical JSON has one spelling, and names that could be misread are refused by saying which character."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.common.canonical_json import canonical_json, digest_of, is_digest
from ashat.common.identifiers import check_licence_key, check_server_name, check_update_id
from ashat.errors import UsageError

scalars = st.none() | st.booleans() | st.integers() | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)


@given(values)
def test_what_is_read_back_is_what_was_written(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), values, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert canonical_json({key: value[key] for key in keys}) == canonical_json(value)
    assert digest_of(value) == hashlib.sha256(canonical_json(value)).hexdigest()


def test_there_is_no_space_and_no_escaped_letter() -> None:
    assert canonical_json({"b": [1, True, None], "a": "ü\n"}) == '{"a":"ü\\n","b":[1,true,null]}'.encode()


@pytest.mark.parametrize("value", [1.0, {"a": [0.5]}, {1: "a"}, {"a": {None: 1}}, float("nan"), b"a", {"a": {1, 2}}])
def test_what_has_no_one_spelling_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^\$"):
        canonical_json(value)


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("a" * 64, True),
        ("A" * 64, False),
        ("a" * 63, False),
        ("a" * 64 + "\n", False),
        (None, False),
        (b"a" * 64, False),
    ],
)
def test_a_digest_is_64_lower_case_hex_digits(text: object, yes: bool) -> None:
    assert is_digest(text) is yes


@pytest.mark.parametrize("text", ["UPD-2026-11", "a", "0", "v1.2.3_rc-1", "x" * 64])
def test_an_update_id_is_taken_as_it_is(text: str) -> None:
    assert check_update_id(text) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be empty"),
        ("x" * 65, "at most 64 characters; this one has 65"),
        ("x" * 200, "this one has 200"),
        ("a/b", "'/'"),
        ("a b", "' '"),
        ("-a", "'-'"),
        (".hidden", r"'\.'"),
        ("..", r"'\.'"),
        ("a\nb", r"U\+000A"),
        ("a\x00b", r"U\+0000"),
        ("a\x1b[31m", r"U\+001B"),
        ("UPD-1\n", r"U\+000A"),
        ("ümlaut", "'ü'"),
        ("a\u202eb", r"U\+202E RIGHT-TO-LEFT OVERRIDE"),
        ("١", "'١'"),
    ],
)
def test_any_other_update_id_is_refused_by_what_is_wrong_with_it(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as told:
        check_update_id(text)
    assert str(told.value).isprintable()


@given(st.text(max_size=80))
def test_an_update_id_is_safe_in_a_path_a_url_and_a_terminal(text: str) -> None:
    try:
        check_update_id(text)
    except UsageError as refusal:
        lines = str(refusal)
    else:
        lines = text
        assert text.isascii()
        assert text[0].isalnum()
        assert not set(text) & set("/\\ \n\t%?#&:;'\"`$")
    assert lines.isprintable()


@pytest.mark.parametrize("text", ["public", "omega-eu", "0", "x" * 63])
def test_a_server_name_is_taken_as_it_is(text: str) -> None:
    assert check_server_name(text) == text


@pytest.mark.parametrize("text", ["", "Omega", "omega eu", "-omega", "omega_eu", "omega\n", "x" * 64, "ömega"])
def test_any_other_server_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot name a server"):
        check_server_name(text)


def test_a_licence_key_is_taken_as_it_is() -> None:
    assert check_licence_key("RACORE-0123ABCD-89ABCDEF-00000000") == "RACORE-0123ABCD-89ABCDEF-00000000"


@pytest.mark.parametrize(
    "text", ["", "RACORE-0123abcd-89ABCDEF-00000000", "RACORE-1-2-3", "RACORE-0123ABCD-89ABCDEF-0000000\n"]
)
def test_a_wrong_licence_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="RACORE-XXXXXXXX") as told:
        check_licence_key(text)
    assert "89ABCDEF" not in str(told.value)
