"""Labels: what may be one, and what is refused in a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.errors import UsageError
from ashat.rollouts.labels import MAX_LABELS, MAX_LENGTH, check_labels, matches, parse_label, parse_labels


def test_a_label_is_a_key_and_a_value() -> None:
    assert parse_labels(["ring=internal", "region=eu-west_1.a"]) == {"ring": "internal", "region": "eu-west_1.a"}
    assert matches({"ring": "internal"}, "ring=internal")
    assert not matches({"ring": "internals"}, "ring=internal")
    assert not matches({}, "ring=internal")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ring", "has no '='"),
        ("=internal", "has no key"),
        ("ring=", "has no value"),
        ("ring=a=b", "value cannot be 'a=b'"),
        ("ri ng=a", "key cannot be 'ri ng'"),
        ("ring=-a", "value cannot be '-a'"),
        ("ring=a\n", "holds U+000A"),
        ("ring=\x1b[31m", "holds U+001B"),
        ("ri\u202eng=a", "holds U+202E"),
        ("k" * 64 + "=a", "at most 63 characters"),
        ("k=" + "v" * 100_000, "at most 63 characters"),
        ("größe=1", "key cannot be 'größe'"),
    ],
)
def test_what_is_no_label_is_refused_in_a_line(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_label(text)
    assert why in str(refused.value)
    assert len(str(refused.value)) < 250
    assert str(refused.value).isprintable()


def test_a_key_twice_and_too_many_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="ring is given twice: ring=a and ring=b"):
        parse_labels(["ring=a", "ring=b"])
    most = {f"k{n}": "v" for n in range(MAX_LABELS)}
    assert check_labels(most) == most
    with pytest.raises(UsageError, match=f"at most {MAX_LABELS} labels"):
        check_labels({**most, "more": "v"})


@given(st.text(max_size=70))
def test_whatever_passes_is_short_and_seen(text: str) -> None:
    try:
        key, value = parse_label(text)
    except UsageError:
        return
    assert f"{key}={value}" == text
    assert text.isascii()
    assert text.isprintable()
    assert max(len(key), len(value)) <= MAX_LENGTH
