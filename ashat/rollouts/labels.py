"""Labels of Mainframes, such as `ring=internal`: read, checked, and held against a selector.

The characters are those of Kubernetes' labels, without prefixes:
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ashat.common.text import cut, hidden_character
from ashat.errors import UsageError

MAX_LABELS = 32
MAX_LENGTH = 63
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

Labels = Mapping[str, str]


def parse_label(text: str) -> tuple[str, str]:
    """Return the key and the value of `key=value`.

    Raises:
        UsageError: it is no such text; one line that says what is wrong.
    """
    if found := hidden_character(text):
        raise UsageError(f"A label holds {found}, which nobody sees. Write it as key=value, such as region=eu.")
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"The label {cut(text, 80)!r} has no '='. Write it as key=value, such as region=eu.")
    for what, part in (("key", key), ("value", value)):
        if not part:
            raise UsageError(f"The label {cut(text, 80)!r} has no {what}. Write it as key=value, such as region=eu.")
        if len(part) > MAX_LENGTH:
            raise UsageError(
                f"A label's {what} has at most {MAX_LENGTH} characters; {cut(part, 24)!r} has {len(part)}."
            )
        if not _PART.fullmatch(part):
            raise UsageError(
                f"A label's {what} cannot be {part!r}: use letters, digits, '-', '_' and '.', "
                "the first and the last a letter or digit."
            )
    return key, value


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Return the labels that `texts` spell, each as `key=value`, by key.

    Raises:
        UsageError: one is no label, a key occurs twice, or there are more than `MAX_LABELS`.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, value = parse_label(text)
        if key in found:
            raise UsageError(f"The label {key} is given twice: {key}={found[key]} and {key}={value}. Keep one.")
        if len(found) == MAX_LABELS:
            raise UsageError(f"A Mainframe has at most {MAX_LABELS} labels.")
        found[key] = value
    return found


def check_labels(labels: Labels) -> dict[str, str]:
    """Return `labels` if each key and value may stand in a label, and there are not too many.

    Raises:
        UsageError: one may not; one line that says what is wrong.
    """
    return parse_labels(f"{key}={value}" for key, value in labels.items())


def matches(labels: Labels, selector: str) -> bool:
    """Tell whether `labels` has what `selector` asks for, a label as `key=value`."""
    key, _, value = selector.partition("=")
    return labels.get(key) == value
