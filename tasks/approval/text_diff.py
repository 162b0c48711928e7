"""Show how the text files of two bundles differ, as Markdown that nothing in them can leave.

They are bytes of a release: how many files, bytes and lines are read, and how long is compared, has a bound.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterator

from ashat.bundle.manifest import BundleDiff, FileEntry, Manifest
from ashat.client.node import NodeClient
from ashat.common.text import cut, printable, without_secrets
from tasks.runtime.artifacts import escape

FILE_LIMIT = 64 * 1024
FILES = 40
LINES = 1000
SECONDS = 5.0
_WIDTH = 160
_CONTEXT = 3
_HEADER = 2  # the two lines that would name the files
_GAP = "…"


def text_changes(found: BundleDiff, old: tuple[NodeClient, Manifest], new: tuple[NodeClient, Manifest]) -> list[str]:
    """Write a block of Markdown for each file that changed from the bundle `old` to `new`, each on the node that holds
    it; one that says so for what is left out. New and removed files are named elsewhere.

    Raises:
        NodeError: a node does not answer.
        IntegrityError: a node sent other bytes.
    """
    small = [path for path in found.changed if _is_small(path, old[1], new[1])]
    shown, blocks, until = small[:FILES], [], time.monotonic() + SECONDS
    pairs = zip(shown, _contents(*old, shown), _contents(*new, shown), strict=True)
    for path, before, after in pairs:
        if time.monotonic() > until:
            break
        blocks.append(file_change(path, before, after))
    if left := len(found.changed) - len(blocks):
        blocks.append(f"{left} changed file{'' if left == 1 else 's'} more: too large, or too many to be shown here.")
    return blocks


def file_change(path: str, old: bytes, new: bytes) -> str:
    """Write how one file differs: a block of added and removed lines, or in a line why there is none."""
    title = f"**{escape(path)}**"
    try:
        before, after = (_lines(content) for content in (old, new))
    except UnicodeDecodeError:
        return f"{title}: not a text, {len(old)} bytes before and {len(new)} now."
    before, after = _without_ends(before, after)
    if max(len(before), len(after)) > LINES:
        return f"{title}: too much of it changed to be shown here."
    compared = list(difflib.unified_diff(before, after, lineterm="", n=_CONTEXT))[_HEADER:]
    shown = [_GAP if line.startswith("@@") else _shown(line) for line in compared][1:]
    if not shown:
        return f"{title}: only its line ends changed."
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", "\n".join(shown))), default=0))
    return "\n".join([title, "", f"{fence}diff", *shown, fence])


def _contents(node: NodeClient, bundle: Manifest, paths: list[str]) -> Iterator[bytes]:
    return node.files_bytes(bundle.by_path[path] for path in paths)


def _is_small(path: str, *bundles: Manifest) -> bool:
    entries: list[FileEntry] = [bundle.by_path[path] for bundle in bundles]
    return all(entry.size <= FILE_LIMIT for entry in entries)


def _lines(content: bytes) -> list[str]:
    """Split a text into lines; UnicodeDecodeError where it is none."""
    if b"\0" in content:
        raise UnicodeDecodeError("utf-8", content, 0, 1, "a text has no NUL")
    return content.decode("utf-8").splitlines()


def _without_ends(before: list[str], after: list[str]) -> tuple[list[str], list[str]]:
    """Drop the lines at both ends that are the same, but for those that give the context: comparing costs the product
    of what is left."""
    shorter = min(len(before), len(after))
    top = next((n for n in range(shorter) if before[n] != after[n]), shorter)
    bottom = next((n for n in range(shorter - top) if before[-1 - n] != after[-1 - n]), shorter - top)
    first, last = max(0, top - _CONTEXT), max(0, bottom - _CONTEXT)
    return before[first : len(before) - last], after[first : len(after) - last]


def _shown(line: str) -> str:
    return cut(without_secrets(printable(line)), _WIDTH)
