"""Texts that people read: nothing hides in them, and names are refused where something would."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ashat.common.text import hidden_character, printable, printable_json, require_visible
from ashat.errors import BundleError
from ashat.node.logs.access_log import cleaned
from ashat.protocol.messages import AccessLogLine, LeaseRequest
from ashat.raos_toml.load import load_raos_toml
from tasks.runtime.artifacts import escape

HIDDEN = (
    "\u202a\u202e\u2066\u2069\u200e\u200f\u061c\x85\u2028\u2029\u200b\u200d\u00ad\ufeff\u3164\U000e0041\x1b\x00\x7f"
)


@pytest.mark.parametrize("letter", HIDDEN)
def test_what_nobody_sees_is_shown_by_its_number_and_refused_in_a_name(letter: str) -> None:
    number = letter.encode("unicode_escape").decode()

    assert printable(f"Kim{letter} Lee") == f"Kim{number} Lee"
    assert escape(f"Kim{letter}*") == f"Kim\\{number}\\*"
    assert hidden_character(f"Kim{letter}").startswith(f"U+{ord(letter):04X} ")
    with pytest.raises(ValueError, match="nobody sees"):
        require_visible(f"Kim{letter}")
    with pytest.raises(ValidationError):
        LeaseRequest(holder="UPD-1", who=f"kim{letter}@alpha", why="push", ttl=1)
    if letter not in "\x1b\x00\x7f\x85\u2028\u2029":
        with pytest.raises(BundleError, match=r"raos\.name: holds U\+.*, which nobody sees"):
            load_raos_toml(f'[raos]\nname = "Ra{letter}OS"\nversion = "1"\n'.encode())


def test_what_people_write_stays_as_it_is() -> None:
    for text in ("Grüße, 日本語, العربية, עברית, हिन्दी", "⚠️ 60 % — done", "a b"):
        assert printable(text) == printable_json(text) == text
    assert printable("a\tb\r\nc\u00a0d\u3000e") == "a b  c d e"
    assert hidden_character("Screenshot 10\u202f12.png") == ""


def test_a_request_is_logged_in_one_line_that_hides_nothing() -> None:
    line = AccessLogLine(at="2026-01-01T00:00:00Z", method="GET", path="/\u2028\u202e", status=404, client="::1")
    assert cleaned(line).path == r"/\u2028\u202e"


@given(st.text())
def test_any_text_becomes_one_visible_line(text: str) -> None:
    shown = printable(text)

    assert len(shown.splitlines()) <= 1
    assert shown.replace("\ufe0f", "").isprintable()
    assert hidden_character(shown.replace("\ufe0f", "")) == ""
    assert printable(shown) == shown
    assert not any(unicodedata.category(letter)[0] == "C" for letter in shown)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_json_that_is_shown_says_the_same(value: object) -> None:
    shown = printable_json(json.dumps(value, ensure_ascii=False, indent=1))

    assert json.loads(shown) == value
    assert all(letter == "\n" or printable(letter) == letter for letter in shown)
