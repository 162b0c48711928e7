"""Looks into jars, wheels and other zips for what they are built from, and into those that they hold.

https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT says what a zip is. Only stored and deflated entries are
read: the dictionaries of the other methods may take any memory.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence

from tasks.checks.scan.formats.limits import TEXT_LIMIT
from tasks.checks.scan.packages import Declared, Reader, read_safely

ARCHIVE_LIMIT = 192 * 1024 * 1024
ENTRIES_LIMIT = 200_000
UNPACKED_LIMIT = 256 * 1024 * 1024
NESTING_LIMIT = 4
ARCHIVE = re.compile(r"\.(jar|war|ear|aar|hpi|whl|egg|nupkg|zip)$", re.IGNORECASE)
OTHER_ARCHIVE = re.compile(
    r"\.(t[gbx]z2?|tar|tar\.\w+|gem|crate|conda|deb|rpm|apk|phar|asar|7z|rar|pex|pyz)$", re.IGNORECASE
)

_JAR = re.compile(r"\.(jar|war|ear)$", re.IGNORECASE)
_SIGNATURE = b"PK\x01\x02"
_VERSIONED = re.compile(r"(?:.*/)?([A-Za-z][\w.-]*?)-(\d[\w.-]*)\.jar", re.ASCII)
# Builds that write no coordinates into their jars, by the beginning of the jar's name: https://search.maven.org
_GROUPS = {
    "spring-boot": "org.springframework.boot",
    "spring-security": "org.springframework.security",
    "spring-data": "org.springframework.data",
    "spring-kafka": "org.springframework.kafka",
    "spring-integration": "org.springframework.integration",
    "spring-": "org.springframework",
    "tomcat-embed": "org.apache.tomcat.embed",
    "kotlin-": "org.jetbrains.kotlin",
    "kotlinx-": "org.jetbrains.kotlinx",
    "okhttp": "com.squareup.okhttp3",
    "okio": "com.squareup.okio",
    "micrometer-": "io.micrometer",
    "reactor-": "io.projectreactor",
    "hibernate-core": "org.hibernate.orm",
    "selenium-": "org.seleniumhq.selenium",
    "opentelemetry-": "io.opentelemetry",
    "groovy": "org.apache.groovy",
}

Select = Callable[[Sequence[str], Declared], Iterable[tuple[str, Reader]]]


class _Budget:
    """How many bytes may still be unpacked of one file of the bundle."""

    def __init__(self) -> None:
        self.left = UNPACKED_LIMIT


def open_archive(path: str, content: bytes, found: Declared, select: Select) -> None:
    """Add what the archive holds, with the readers that `select` chooses for its entries.

    Raises:
        ValueError: it is no zip, or has more entries than anybody means.
    """
    _open(path, content, found, select, _Budget(), 1)


def _open(path: str, content: bytes, found: Declared, select: Select, budget: _Budget, level: int) -> None:
    if content.count(_SIGNATURE) > ENTRIES_LIMIT:
        raise ValueError(f"more than {ENTRIES_LIMIT} entries")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {f"{path}!/{info.filename}": info for info in archive.infolist() if not info.is_dir()}
            for place, reader in select(sorted(entries), found):
                read_safely(place, _unpacked(archive, entries[place], budget, TEXT_LIMIT), found, reader)
            if _JAR.search(path) and not any("!/META-INF/maven/" in place for place in entries):
                _name_itself(path, found)
            for place in sorted(entries):
                if ARCHIVE.search(place):
                    _open_inner(place, archive, entries[place], found, select, budget, level + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise ValueError(f"no zip that can be read: {str(error)[:80] or type(error).__name__}") from None


def _open_inner(
    place: str,
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    found: Declared,
    select: Select,
    budget: _Budget,
    level: int,
) -> None:
    if level > NESTING_LIMIT:
        found.leave(place, f"an archive in an archive, {level} deep")
        return
    try:
        _open(place, _unpacked(archive, info, budget, UNPACKED_LIMIT), found, select, budget, level)
    except ValueError as error:
        found.leave(place, str(error))


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget, limit: int) -> bytes:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename[:80]!r} is compressed in a way that is not read")
    with archive.open(info) as entry:
        content = entry.read(min(limit, budget.left) + 1)
    budget.left -= len(content)
    if len(content) > limit or budget.left < 0:
        raise ValueError(f"more than {min(limit, UNPACKED_LIMIT) // 1024 // 1024} MB unpacked")
    return content


def _name_itself(path: str, found: Declared) -> None:
    """Add a jar without coordinates by its name, where the name's beginning says whose it is."""
    named = _VERSIONED.fullmatch(path.rpartition("!/")[2])
    group = next((group for start, group in _GROUPS.items() if named and named[1].startswith(start)), "")
    if named and group:
        found.add(path, "Maven", f"{group}:{named[1]}", named[2])
    else:
        found.unnamed.add(path)
