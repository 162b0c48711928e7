"""The rules of a tree: which names, links and directories a bundle may hold, so that no server misreads one.

Every fault of a tree is found in one pass and told at once, by kind, each kind with its count and its first names.
Two sets of rules: those that hold everywhere, and those for names that Windows (or another filesystem that ignores
case) cannot hold, which whoever has no such server may turn off.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from ashat.common.text import hidden_character

PATH_BYTES = 1024
NAME_BYTES = 255
DEPTH_LIMIT = 64
DIRECTORIES_LIMIT = 100_000
LINKS_LIMIT = 50_000
TARGET_NAMES = 2 * DEPTH_LIMIT
LINKS_IN_A_ROW = 40
NAMES_SHOWN = 5
_SHOWN = 80

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: reserved with any extension.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FORBIDDEN = re.compile(r'[<>:"|?*\\]')


class Kind(StrEnum):
    """A kind of fault, as the heading of those that break the same rule, with what to do."""

    LEAVING = "symbolic links that lead out of the tree; let them stay inside, or ship what they lead to"
    ABSOLUTE = "symbolic links to an absolute path; make them relative to where they stand, or ship a file"
    CHAIN = f"symbolic links that go on over more than {LINKS_IN_A_ROW} others; let them lead there directly"
    LINKS = "symbolic links beyond the limit; ship files in their place"
    SPECIAL = "devices, pipes or sockets; remove them"
    UNREADABLE = "that cannot be read; check their permissions"
    SUBMODULE = "submodules that are not in the tree; push a checkout that has them"
    POINTER = "Git LFS pointers in place of files; push a checkout that has the files"
    PATH = "that are no plain relative paths; rename them"
    UTF8 = "names that are not valid UTF-8; rename them"
    NFC = "names that are not in Unicode normal form C; rename them"
    HIDDEN = "names with a character that nobody sees or that turns what is read; rename them"
    CONTROL = "names with a control character; rename them"
    LENGTH = f"names over {NAME_BYTES} bytes or paths over {PATH_BYTES}; shorten them"
    DEPTH = f"paths more than {DEPTH_LIMIT} names deep; what lies below was not looked at; flatten them"
    DIRECTORIES = "directories beyond the limit; ship an archive of those that belong together"
    TWICE = "paths that are named twice, or both as a directory and as something else"
    ENCRYPTED = "encrypted entries; make the archive without a password"
    METHOD = "entries in a compression that is not read; make the archive with deflate"
    SIZE = "files larger than one of an artifact may be; ship them another way"
    DIGEST = "digests that do not fit what is there; build or fetch the artifact again"
    WINDOWS = "names that Windows cannot hold; rename them"
    CASE = "names that differ from others only in case, which Windows ignores; rename them"


class Refusal(NamedTuple):
    """What a bundle cannot hold: `text` says it alone, in a sentence; `name` shows it among others of its kind."""

    kind: Kind
    name: str
    text: str


@dataclass
class Refusals:
    """What was found wrong with a tree: counted by kind, with the first few names of each."""

    counts: dict[Kind, int] = field(default_factory=dict)
    names: dict[Kind, list[str]] = field(default_factory=dict)
    first: str = ""

    def add(self, refusal: Refusal) -> None:
        """Count a refusal."""
        self.first = self.first or refusal.text
        self.counts[refusal.kind] = self.counts.get(refusal.kind, 0) + 1
        shown = self.names.setdefault(refusal.kind, [])
        if len(shown) < NAMES_SHOWN:
            shown.append(refusal.name)

    def merge(self, others: Refusals) -> None:
        """Count what `others` counted, too."""
        self.first = self.first or others.first
        for kind, count in others.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            self.names[kind] = [*self.names.get(kind, []), *others.names[kind]][:NAMES_SHOWN]

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        """Say the one refusal in its own sentence, or all of them in a line for each kind, the largest first."""
        total = sum(self.counts.values())
        if total < 2:
            return self.first
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return "\n".join([f"The tree holds {total} paths that a bundle cannot hold:", *map(self._line, ordered)])

    def _line(self, counted: tuple[Kind, int]) -> str:
        kind, count = counted
        names = ", ".join(self.names[kind])
        more = f" and {count - NAMES_SHOWN} more" if count > NAMES_SHOWN else ""
        return f"  {count} {kind}: {names}{more}"


@dataclass(frozen=True, slots=True)
class LinkEntry:
    """A symbolic link of a bundle: `target` is relative to the directory of `path`, and stays inside the bundle."""

    path: str
    target: str


def tree_refusals(
    files: Iterable[str], links: Sequence[LinkEntry], directories: Iterable[str], *, windows: bool
) -> Refusals:
    """Find everything that forbids a tree of such files, links and empty directories; `windows` as for `check_path`."""
    found = Refusals()
    plain: list[str] = []
    for path in (*files, *(link.path for link in links), *directories):
        refusal = path_refusal(path, windows=windows)
        if refusal is None:
            plain.append(path)
        else:
            found.add(refusal)
    for refusal in (*_clashes(plain, windows=windows), *_link_refusals(links, windows=windows)):
        found.add(refusal)
    return found


def path_refusal(path: str, *, windows: bool) -> Refusal | None:
    """Find the first rule that `path` breaks: those of every server, and with `windows` those of Windows too."""
    if not path or path.startswith("/"):
        return _refusal(Kind.PATH, path, "is an absolute or empty path; a bundle holds relative paths only.")
    return _text_refusal(path) or _names_refusal(path, path.split("/"), windows=windows)


def fold(path: str) -> str:
    """Fold `path` as a case-insensitive filesystem compares it (Unicode 3.13, canonical caseless matching)."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def shown(path: str) -> str:
    """Quote `path` for a message, cut where it is long."""
    return repr(path) if len(path) <= _SHOWN else f"{path[:_SHOWN]!r}…"


def _refusal(kind: Kind, path: str, said: str) -> Refusal:
    return Refusal(kind, shown(path), f"{shown(path)} {said}")


def _text_refusal(path: str) -> Refusal | None:
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return _refusal(Kind.UTF8, path, "is not valid UTF-8; rename it.")
    if size > PATH_BYTES:
        return _refusal(Kind.LENGTH, path, f"is {size} bytes long; a path has at most {PATH_BYTES}.")
    if not unicodedata.is_normalized("NFC", path):
        return _refusal(Kind.NFC, path, "is not in Unicode normal form C (NFC); rename it.")
    return None


def _names_refusal(path: str, names: Sequence[str], *, windows: bool) -> Refusal | None:
    if len(names) > DEPTH_LIMIT:
        return _refusal(Kind.DEPTH, path, f"is {len(names)} names deep; a path has at most {DEPTH_LIMIT}.")
    for name in names:
        if name in ("", ".", ".."):
            said = "has an empty, '.' or '..' part; a bundle holds plain relative paths only."
            return _refusal(Kind.PATH, path, said)
    return _characters_refusal(path, names, windows=windows)


def _characters_refusal(path: str, names: Sequence[str], *, windows: bool) -> Refusal | None:
    for name in names:
        if len(name.encode("utf-8")) > NAME_BYTES:
            return _refusal(Kind.LENGTH, path, f"is too long: a name has at most {NAME_BYTES} bytes.")
        if _CONTROL.search(name):
            return _refusal(Kind.CONTROL, path, "holds a control character; rename it.")
        if windows and (refusal := _windows_refusal(path, name)):
            return refusal
    if found := hidden_character(path):
        return _refusal(Kind.HIDDEN, path, f"holds {found}, which nobody sees or which turns what is read; rename it.")
    return None


def _windows_refusal(path: str, name: str) -> Refusal | None:
    if _FORBIDDEN.search(name):
        return _refusal(Kind.WINDOWS, path, 'holds one of <>:"|?*\\, which Windows does not allow.')
    if name[-1] in ". ":
        return _refusal(Kind.WINDOWS, path, "has a name that cannot end in a dot or a space, which Windows drops.")
    if _RESERVED.fullmatch(name):
        return _refusal(Kind.WINDOWS, path, f"cannot be: {name!r} is a reserved name on Windows; rename it.")
    return None


def _clashes(paths: Iterable[str], *, windows: bool) -> Iterator[Refusal]:
    """Find the paths that cannot lie side by side, and directories that are too many."""
    directories = 0
    key_of = fold if windows else str
    # What stands below one directory stands together here, so that each path needs to be held against one other only.
    folded = sorted((key_of(path).replace("/", "\0"), path) for path in paths)
    for (before, other), (key, path) in pairwise([("", ""), *folded]):
        shared = _shared(before.split("\0"), key.split("\0"))
        yield from _neighbours(other.split("/"), path.split("/"), shared)
        directories += key.count("\0") - shared
    if directories > DIRECTORIES_LIMIT:
        text = f"The bundle has {directories} directories; at most {DIRECTORIES_LIMIT} are made."
        yield Refusal(Kind.DIRECTORIES, str(directories), text)


def _shared(one: list[str], other: list[str]) -> int:
    """Count the names that two paths, in any one spelling, begin with alike."""
    return next(
        (depth for depth, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _neighbours(one: list[str], other: list[str], shared: int) -> Iterator[Refusal]:
    """Compare two paths whose first `shared` names are equal, or equal under case folding."""
    alike = _shared(one[:shared], other[:shared])
    if alike < shared:
        first, second = ("/".join(names[: alike + 1]) for names in (one, other))
        text = f"{shown(first)} and {shown(second)} are equal under case folding; rename one."
        yield Refusal(Kind.CASE, f"{shown(second)} as {shown(first)}", text)
    elif shared == len(other):
        yield _refusal(Kind.TWICE, "/".join(other), "is named twice.")
    elif shared == len(one):
        yield _refusal(Kind.TWICE, "/".join(one), "is both a file and a directory.")


def _link_refusals(links: Sequence[LinkEntry], *, windows: bool) -> Iterator[Refusal]:
    if len(links) > LINKS_LIMIT:
        text = f"The bundle has {len(links)} symbolic links; at most {LINKS_LIMIT} are made."
        yield Refusal(Kind.LINKS, str(len(links)), text)
        return
    resolver = _Resolver(links)
    for link in links:
        refusal = _target_refusal(link, windows=windows) or resolver.refusal(link)
        if refusal:
            yield refusal


def _target_refusal(link: LinkEntry, *, windows: bool) -> Refusal | None:
    """Find what is wrong with the words of a link's target, wherever it leads."""
    names = [name for name in link.target.split("/") if name not in ("", ".", "..")]
    if not link.target or "\0" in link.target:
        return _refusal(Kind.PATH, link.path, "is a symbolic link to nothing; remove it.")
    if link.target.startswith("/"):
        said = f"is a symbolic link to the absolute path {shown(link.target)}; make it relative, or ship a file."
        return _refusal(Kind.ABSOLUTE, link.path, said)
    if link.target.count("/") >= TARGET_NAMES:
        return _refusal(Kind.DEPTH, link.path, f"is a symbolic link over more than {TARGET_NAMES} names.")
    wrong = _text_refusal(link.target) or _characters_refusal(link.target, names, windows=windows)
    if wrong:
        text = f"{shown(link.path)} is a symbolic link, whose target {wrong.text}"
        return Refusal(wrong.kind, shown(link.path), text)
    return None


class _End(NamedTuple):
    """Where a link leads: a place of the bundle ("" is its root), None where nothing can be; over so many links."""

    place: str | None
    links: int = 0
    fault: Kind | None = None


class _TooManyLinks(Exception):
    """A link goes on over more links than a system follows."""


class _Resolver:
    """Follows links as a kernel does, without a disk: `..` leaves the directory that was reached, links included.

    What is not in the bundle is taken as a directory, so that a link must stay inside whatever will lie there; and a
    name is taken for a link's in whatever case it is spelled, as some filesystems do. Links that lead round in a circle
    lead nowhere, on every system, and so nowhere outside.
    """

    def __init__(self, links: Iterable[LinkEntry]) -> None:
        self._links = {link.path: link for link in links}
        self._folded = {fold(path): link for path, link in self._links.items()}
        self._ends: dict[str, _End] = {}

    def refusal(self, link: LinkEntry) -> Refusal | None:
        """Refuse a link that leaves the bundle, by itself or through others."""
        try:
            fault = self._end(link, LINKS_IN_A_ROW).fault
        except _TooManyLinks:
            fault = Kind.CHAIN
        target = f"is a symbolic link to {shown(link.target)}"
        match fault:
            case None:
                return None
            case Kind.CHAIN:
                said = f"{target}, which goes on over more than {LINKS_IN_A_ROW} others; let it lead there directly."
            case Kind.LENGTH:
                said = f"{target}, which makes a path over {2 * PATH_BYTES} bytes; shorten it."
            case _:
                said = f"{target}, which leads out of the tree; let it stay inside, or ship what it leads to."
        return _refusal(fault, link.path, said)

    def place(self, path: str) -> str | None:
        """Find where `path` leads when every link on the way is followed; None where it cannot be followed."""
        try:
            return self._walk("", path, LINKS_IN_A_ROW).place
        except _TooManyLinks:
            return None

    def _end(self, link: LinkEntry, left: int) -> _End:
        if link.path not in self._ends:
            if left < 0:
                raise _TooManyLinks
            self._ends[link.path] = _End(None)  # while it is followed: who comes back here goes round in a circle
            try:
                self._ends[link.path] = self._walk(link.path.rpartition("/")[0], link.target, left)
            except _TooManyLinks:
                del self._ends[link.path]
                raise
        return self._ends[link.path]

    def _walk(self, start: str, target: str, left: int) -> _End:
        """Follow `target` from the directory `start`."""
        if target.startswith("/"):
            return _End(None, fault=Kind.LEAVING)
        place, links = start, 0
        for name in target.split("/"):
            if name in ("", "."):
                continue
            if name == "..":
                if not place:
                    return _End(None, fault=Kind.LEAVING)
                place = place.rpartition("/")[0]
                continue
            place = f"{place}/{name}" if place else name
            if len(place) > 2 * PATH_BYTES:
                return _End(None, fault=Kind.LENGTH)
            if link := self._links.get(place) or self._folded.get(fold(place)):
                end = self._end(link, left - 1)
                links += 1 + end.links
                if end.place is None or links > LINKS_IN_A_ROW:
                    return _End(None, fault=end.fault if end.place is None else Kind.CHAIN)
                place = end.place
        return _End(place, links)


def followed(links: Sequence[LinkEntry], path: str) -> str | None:
    """Find where `path` leads in a bundle with these links; None where it leads round in a circle or out of it."""
    return _Resolver(links).place(path)
