"""Everything that reads bytes of a release, a peer or another's file, with bombs for each, and what one may cost.

`bench/limits.py` measures them, tests/attacks/test_hostile_bytes.py holds them to it, and docs/limits.md lists them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from backports import zstd
from pydantic import ValidationError
from tuf.api.metadata import Metadata, Root, Targets

from ashat.audit.export import LINE_LIMIT, Export
from ashat.bundle.blob_ids import FILE_LIMIT as BLOB_IDS_LIMIT
from ashat.bundle.blob_ids import BlobIds
from ashat.bundle.manifest import MANIFEST_LIMIT, Manifest
from ashat.bundle.stat_cache import FILE_LIMIT as STAT_CACHE_LIMIT
from ashat.bundle.stat_cache import StatCache
from ashat.cli.commands.policies import FILE_LIMIT as POLICY_LIMIT
from ashat.cli.commands.policies import read_policy
from ashat.common.documents import STATE_LIMIT, load_json, read_json
from ashat.errors import (
    AuditError,
    BundleError,
    CarriedFileError,
    CheckpointError,
    DocumentError,
    FrameError,
    KeyFileError,
    MalformedMetadataError,
    ManifestError,
    ReceiptError,
    UsageError,
)
from ashat.node.access.tokens import FILE_LIMIT as TOKENS_LIMIT
from ashat.node.access.tokens import TokenFile
from ashat.node.api.probes import REPORT_BYTES, read_report
from ashat.node.app_process.output import READ_BYTES, ProgramOutput
from ashat.node.core.config import FILE_LIMIT as NODE_LIMIT
from ashat.node.core.config import NodeConfig
from ashat.protocol.carried import WORD_LIMIT, CarriedFile, Contents, carried_frames
from ashat.protocol.compression import Decompressor
from ashat.protocol.frames import FrameDecoder
from ashat.protocol.messages import OBJECT_LIMIT, REQUEST_LIMIT, OperationRequest, Role
from ashat.raos_toml.load import SIZE_LIMIT, load_raos_toml
from ashat.receipts.receipt import LIMIT as RECEIPT_LIMIT
from ashat.receipts.receipt import Receipt
from ashat.transparency.checkpoint import LONGEST_NOTE, Verifier, open_checkpoint
from ashat.trust.authority.key_change import MAX_BYTES as CHANGE_LIMIT
from ashat.trust.authority.key_change import Change
from ashat.trust.keys.files import load_public_key
from ashat.trust.release.provenance import MAX_BYTES as PROVENANCE_LIMIT
from ashat.trust.release.provenance import read_provenance
from ashat.trust.tuf.metadata import METADATA_LIMIT, parse
from ashat.trust.tuf.release_document import MAX_BYTES as DOCUMENT_LIMIT
from ashat.trust.tuf.release_document import ReleaseDocument
from tasks.approval.text_diff import FILE_LIMIT as SHOWN_LIMIT
from tasks.approval.text_diff import file_change
from tasks.checks.kit.openapi import DOCUMENT_LIMIT as OPENAPI_LIMIT
from tasks.checks.kit.openapi import Document
from tasks.checks.scan.containers import Opening, members
from tasks.checks.scan.credentials import TEXT_LIMIT, find_secrets
from tasks.checks.scan.formats.limits import TEXT_LIMIT as LOCK_LIMIT
from tasks.checks.scan.formats.python import SETTINGS_LIMIT
from tasks.checks.scan.key_files import STORE_LIMIT, key_in
from tasks.checks.scan.lockfiles import read_declaration
from tasks.checks.scan.osv import AdvisoriesUnknownError
from tasks.checks.scan.osv_api import ANSWER_BYTES, _Batch
from tasks.checks.scan.osv_offline import RECORD_BYTES, read_copy
from tasks.checks.scan.packages import Declared, Package
from tasks.checks.scan.search import HELD_LIMIT
from tasks.checks.scan.vendored import LIST_LIMIT, Vendored, read_list

Bomb = Callable[[int], bytes]
# As large an archive as can be measured on any machine; ARCHIVE_LIMIT is what one of a bundle may have.
ARCHIVE_BOMB = 16 * 1024 * 1024


@dataclass(frozen=True)
class Reader:
    """What reads `most` bytes, within `limit_mb` megabytes beyond them and `limit_s` seconds of processor; it raises
    `refuses` and nothing else."""

    name: str
    read: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    most: int
    limit_mb: int
    limit_s: int
    bombs: Mapping[str, Bomb]


def filled(head: str, piece: str, tail: str = "") -> Bomb:
    """A text of so many bytes: `head`, and `piece` as often as there is room before `tail`."""
    first, again, last = (part.encode() for part in (head, piece, tail))
    return lambda size: first + again * ((size - len(first) - len(last)) // len(again)) + last


def numbered(line: str, head: str = "", tail: str = "", most: int = 1 << 30) -> Bomb:
    """A text of so many bytes at most: `line` with the numbers from 0, between `head` and `tail`."""

    def make(size: int) -> bytes:
        count = min(most, (size - len(head) - len(tail)) // len(line % 10_000_000))
        lines = "".join(line % number for number in range(count))
        return (head + (lines.removesuffix(",") if tail else lines) + tail).encode()

    return make


def in_file(read: Callable[[Path], object], name: str = "file") -> Callable[[bytes], object]:
    """Make a reader of files one of bytes."""

    def reader(raw: bytes) -> object:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / name
            path.write_bytes(raw)
            path.chmod(0o600)
            return read(path)

    return reader


JSON: Mapping[str, Bomb] = {
    "nested lists": filled("", "["),
    "nested objects": filled("", '{"a":'),
    "a long number": filled("", "9"),
    "a number without end": filled("1e", "9"),
    "small lists": filled("[", "[],", "[]]"),
    "small objects": filled("[", '{"a":0},', "{}]"),
    "many keys": numbered('"%d":0,', "{"),
    "numbers": filled("[", "0,", "0]"),
    "escapes": filled('"', "\\ud83d\\ude00", '"'),
    "a text that never ends": filled('"', '\\"'),
    "spaces": filled("", " "),
    "no text": filled("", "\0"),
}
TOML: Mapping[str, Bomb] = {
    "a dotted key": filled("a", ".a", " = 1"),
    "a dotted table": filled("[a", ".a", "]"),
    "dotted keys": numbered("k%d.b.c.d.e.f.g.h.i.j = 1\n"),
    "dotted tables": numbered("[k%d.b.c.d.e.f.g.h.i.j]\n", most=9_900),
    "tables": numbered("[k%d]\n"),
    "keys": numbered("k%d = 1\n"),
    "inline tables": filled("a = [", "{},", "{}]"),
    "inline dotted keys": filled("a = [", "{a.b.c = 0},", "]"),
    "nested lists": filled("a = ", "["),
    "nested tables": filled("a = ", "{a = "),
    "a long number": filled("a = ", "9"),
    "a long hexadecimal number": filled("a = 0x", "f"),
    "numbers": filled("a = [", "1,", "]"),
    "a text that never ends": filled('a = """', '""a\\"'),
    "escapes": filled('a = "', "\\u0041", '"'),
    "spaces": filled("a = [\n[", " ", "\n1]]"),
}
_KEY = "ashat-deploy/ledger-0000000000000000"
VERIFIER = Verifier(_KEY, bytes(32))


def _openapi(raw: bytes) -> object:
    contents = load_json(raw, limit=OPENAPI_LIMIT)
    document = Document("/openapi.json", "0" * 64, "3.1", contents if isinstance(contents, dict) else {})
    return document.operations(), document.find("/" + "a" * 1000)


def _lock_file(name: str) -> Callable[[bytes], object]:
    def reader(raw: bytes) -> object:
        found = Declared()
        read_declaration(name, raw, found)
        return list(found.findings())

    return reader


def _copy(path: Path) -> object:
    return read_copy(str(path), [Package("PyPI", "a", "1")])


def _frames(raw: bytes) -> object:
    decoder = FrameDecoder()
    count = sum(1 for start in range(0, len(raw), 65_536) for _ in decoder.feed(raw[start : start + 65_536]))
    decoder.finish()
    return count


def _carried(raw: bytes) -> object:
    """What OMEGA says in a file that is carried by hand, which is otherwise in order."""
    contents = Contents(word=max(len(raw), 1), manifest=1, objects=0, bytes=0)
    file = io.BytesIO(b"".join(carried_frames(contents, raw, b"m", [])))
    return CarriedFile(file, "the file", manifest_limit=1)


def _secrets(raw: bytes) -> object:
    return find_secrets(raw, seconds=300)


def _archive(raw: bytes) -> object:
    return sum(len(inner) for _, inner in members(raw, Opening()))


def _packages_files(path: str) -> Callable[[bytes], object]:
    return lambda raw: read_list(path, raw, Vendored())


def _packed(compress: Callable[[bytes], bytes]) -> Bomb:
    """As many streams of 64 MB of nothing, or a hundred times the room, one after the other, as there is room for."""

    def make(size: int) -> bytes:
        stream = compress(bytes(min(64 << 20, 100 * size)))
        return stream * max(1, size // len(stream))

    return make


def _zip_of(name: str, count: int, nothing: int) -> Bomb:
    """A zip of `count` files of so many zero bytes each, or fewer and smaller ones if there is little room for them."""

    def make(size: int) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(min(count, size // 200)):
                archive.writestr(name % number, bytes(min(nothing, 100 * size)))
        return file.getvalue()

    return make


ARCHIVES: Mapping[str, Bomb] = {
    "gzip": _packed(gzip.compress),
    "bzip2": _packed(bz2.compress),
    "xz": _packed(lzma.compress),
    "zstd": _packed(zstd.compress),
    "large files": _zip_of("%d.txt", 8, 100 << 20),
    "many files": _zip_of("%d", 60_000, 1),
    "entries": filled("", "PK\1\2" + "\0" * 42, "PK\5\6" + "\0" * 18),
    "no archive": filled("PK\3\4", "PK\5\6"),
}
STORES: Mapping[str, Bomb] = {
    "entries of a keystore": filled("", "\0"),
    "a sequence": lambda size: b"\x30\x84" + (size - 6).to_bytes(4, "big") + b"\x30" * (size - 6),
    "a keystore": lambda size: b"\xfe\xed\xfe\xed\0\0\0\2\xff\xff\xff\xff" + b"\0\0\0\2" * (size // 4 - 3),
}
RECORD_LISTS: Mapping[str, Bomb] = {
    "rows": numbered("a%d,sha256=AAAA,1\n"),
    "commas": filled("", ","),
    "quotes": filled('"', '""'),
    "lines": filled("", "\n"),
}
SUMS: Mapping[str, Bomb] = {"rows": numbered("0123456789abcdef0123456789abcdef  a%d\n"), "lines": filled("", "\n")}


def _program_log(path: Path) -> object:
    return ProgramOutput(NodeConfig(role=Role.PUBLIC, data=path.parent)).part(1000)


def _tokens(path: Path) -> object:
    return TokenFile(path).all()


def _state(path: Path) -> object:
    return read_json(path, limit=STATE_LIMIT)


def _export(path: Path) -> object:
    with Export(path) as export:
        return sum(1 for _ in export.items())


_FILE = '{"mode":420,"path":"%s","sha256":"' + "a" * 64 + '","size":1},'
_MANIFEST = '{"format":"ashat-bundle/1","modules":{"":['
_LINKED = '{"format":"ashat-bundle/2","modules":{"":['
_LINK = '{"kind":"link","path":"%s","target":"%s"},'
_DIRECTORY = '{"kind":"directory","path":"%s"},'
MANIFESTS: Mapping[str, Bomb] = {
    **JSON,
    "deep paths": numbered(_FILE % ("%07d/" + "a/" * 500 + "x"), _MANIFEST, "]}}"),
    "deep paths that are allowed": numbered(_FILE % ("%07d/" + "a/" * 60 + "x"), _MANIFEST, "]}}"),
    "files": numbered(_FILE % "dir/file-%07d.txt", _MANIFEST, "]}}"),
    "files as small as they may be": filled(_MANIFEST, _FILE % "a", (_FILE % "a").removesuffix(",") + "]}}"),
    "objects that are no files": filled(_MANIFEST, '{"a":0},', "{}]}}"),
    "beginnings of files": filled(_MANIFEST, '{"mode":420,"path":"'),
    "parts": filled(_MANIFEST + '{"mode":420,"parts":[', f'"{"a" * 64}",'),
    "links": numbered(_LINK % ("%07d", "a"), _LINKED, "]}}"),
    "links over many names": numbered(_LINK % ("%07d", "a/../" * 60), _LINKED, "]}}"),
    "links as small as they may be": filled(_LINKED, _LINK % ("a", "a"), (_LINK % ("a", "a"))[:-1] + "]}}"),
    "empty directories": numbered(_DIRECTORY % "%07d", _LINKED, "]}}"),
    "files beside a link": numbered(_FILE % "dir/file-%07d.txt", _LINKED, (_LINK % ("a", "a"))[:-1] + "]}}"),
    "beginnings of links": filled(_LINKED, '{"kind":"link","path":"'),
}
LINES: Mapping[str, Bomb] = {
    "lines": filled("", "\n"),
    "spaces": filled("a", " "),
    "letters": filled("", "a"),
    "signs": filled("-e", "="),
    "requirements": numbered("p%d==1\n"),
    "specifiers": filled("a", ">=1,"),
    "brackets": filled("a; ", "("),
    "continued lines": filled("a ", "\\\n"),
    "included files": filled("", "-r x\n"),
}
METADATA: Mapping[str, Bomb] = {
    "headers": numbered("h%d:\n", "Name: a\n"),
    "a folded header": filled("Name: a\n", " b\n"),
    "lines": filled("", "\r\n"),
    "an encoded header": filled("Name: =?utf-8?q?", "=41", "?="),
}
YAML: Mapping[str, Bomb] = {
    "nested lists": filled("packages: ", "["),
    "nested mappings": filled("packages: ", "{a: "),
    "small lists": filled("packages: [", "[],", "[]]"),
    "keys": numbered("k%d: 1\n", "packages:\n"),
    "packages": numbered("  a@%d.0.0: {}\n", "packages:\n"),
    "aliases": filled("packages: &a [x]\nb: [", "*a,", "*a]"),
    "a text that never ends": filled('packages: "', 'a\\"'),
    "spaces": filled("packages:", " "),
    "dashes": filled("packages: ", "- "),
    "comments": filled("packages: ", "#\n"),
}
XML: Mapping[str, Bomb] = {
    "nested elements": filled("<project>", "<a>"),
    "elements": filled("<project>", "<a/>", "</project>"),
    "dependencies": filled(
        "<project><dependencies>", "<dependency><groupId>g</groupId></dependency>", "</dependencies></project>"
    ),
    "properties": numbered("<k%d>${k1}${k2}</k%d>".replace("</k%d>", "</k>"), "<project><properties>"),
    "attributes": numbered("k%d='' ", "<project ", "/>"),
    "entities": filled("<!DOCTYPE p [", '<!ENTITY a "b">', "]><project/>"),
    "a long text": filled("<project>", "&amp;", "</project>"),
    "a comment": filled("<project><!--", "a", "--></project>"),
}
OF_BUN: Mapping[str, Bomb] = {
    **JSON,
    "commas": filled('{"packages":{"a":["a@1.0.0"', ",", "]}}"),
    "commas and spaces": filled('{"packages":[', ", ", "]}"),
    "commas and lines": filled('{"packages":[,', "\n", ""),
}
BLOCKS: Mapping[str, Bomb] = {
    "packages": numbered('a@%d:\n  version "1.0.0"\n'),
    "keys": filled("", "a@1,", "a@1:\n"),
    "lines": filled("", "\n"),
    "fields": filled("a@1:\n", '  version "1"\n'),
    "a long line": filled('a@1:\n  version "', "1", '"\n'),
    "letters": filled("", "@", ":"),
}
MODULES: Mapping[str, Bomb] = {
    "modules": numbered("require a.b/c%d v1.0.0\n", "go 1.21\n"),
    "replacements": numbered("replace a.b/c%d => d v1.0.0\n"),
    "brackets": filled("", "require (\n"),
    "a long line": filled("require ", "a/", " v1.0.0\n"),
    "spaces": filled("replace a", " ", "=> b v1\n"),
}
GEMS: Mapping[str, Bomb] = {
    "gems": numbered("    a (%d.0)\n", "GEM\n  specs:\n"),
    "a long version": filled("GEM\n    a (1-x86", "-x86", ")\n"),
    "lines": filled("", "\n"),
}
SETTINGS: Mapping[str, Bomb] = {
    "sections": numbered("[s%d]\n"),
    "keys": numbered("k%d=\n", "[options]\n"),
    "values": filled("[options]\ninstall_requires =\n", " a==1\n"),
    "a long line": filled("[options]\ninstall_requires = ", "a"),
    "comments": filled("[options]\n", "#\n"),
}


def zip_of(*entries: tuple[str, bytes], level: int = 9) -> bytes:
    """A zip of `entries`."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return whole.getvalue()


def padded(archive: Callable[[], bytes]) -> Bomb:
    """A zip of so many bytes: `archive`, with something before it that readers skip."""

    def make(size: int) -> bytes:
        made = archive() if size >= ARCHIVE_BOMB else zip_of(("a/package-lock.json", b"{}"))
        return bytes(size - len(made)) + made

    return make


def _nested(levels: int) -> bytes:
    made = zip_of(("META-INF/maven/g/a/pom.properties", bytes(1 << 20)))
    for _ in range(levels):
        made = zip_of(*((f"{number}.jar", made) for number in range(20)))
    return made


JARS: Mapping[str, Bomb] = {
    "a large entry": padded(lambda: zip_of(("a/package-lock.json", bytes(300 << 20)), level=1)),
    "jars in jars": padded(lambda: _nested(3)),
    "entries": padded(lambda: zip_of(*((f"{number}.class", b"") for number in range(60_000)))),
    "signatures": filled("", "PK\x01\x02"),
    "spaces": filled("", " "),
}
OPENAPI: Mapping[str, Bomb] = {
    **JSON,
    "parameters": filled('{"openapi":"3.1.0","paths":{"/', "{x}", '":{}}}'),
    "parameters and letters": filled('{"paths":{"/', "{x}a", 'b":{"get":{}}}}'),
    "variables of a server": filled('{"servers":[{"url":"', "{a}", '","variables":{"a":{"default":"{a}{a}"}}}]}'),
    "servers": filled('{"paths":{"/{x}":{}},"servers":[', '{"url":"/a"},', "{}]}"),
}
NOTES: Mapping[str, Bomb] = {
    **JSON,
    "signatures": filled(f"{_KEY}\n1\n{'A' * 43}=\n\n", f"\u2014 {_KEY} AAAAAAAA\n"),
    "extensions": filled(f"{_KEY}\n1\n{'A' * 43}=\n", "x\n", f"\n\u2014 {_KEY} AAAAAAAA\n"),
    "a long size": filled(f"{_KEY}\n", "9", f"\n{'A' * 43}=\n\n\u2014 {_KEY} AAAAAAAA\n"),
}
TEXTS: Mapping[str, Bomb] = {
    "lines": filled("", "\n"),
    "spaces": filled("", " "),
    "slashes": filled("", "/"),
    "addresses": filled("", "a://b:"),
    "assignments": filled("", "password = \n"),
    "beginnings of tokens": filled("", "eyJ.AKIA0+/="),
    "keys of AWS": filled("", "AKIAJ3ZPQK7W2LMX6TVB "),
    "base64": filled("", "cGFzc3dvcmQgPSAnaHVudGVyMic7IA"),
    "hexadecimal": filled("", "70617373776f7264203d20"),
    "bytes": filled("", "0x41, "),
    "wide letters": filled("", "a\0"),
    "escapes": filled("", "\\x41\\\\n"),
}
DIFFERENCES: Mapping[str, Bomb] = {
    **TEXTS,
    "lines of a hundred kinds": filled("", "".join(f"{n * n % 100}\n" for n in range(900))),
    "backticks": filled("", "`"),
}
RECORDS: Mapping[str, Bomb] = {
    **JSON,
    "names": filled("{", '"name":"a","ecosystem":"PyPI",', '"modified":""}'),
    "a name that never ends": filled('{"name":"', '\\"'),
    "affected": filled('{"id":"x","affected":[', '{"package":{"name":"a","ecosystem":"PyPI"}},', "{}]}"),
}
ANSWERS: Mapping[str, Bomb] = {
    "results": filled('{"results":[', "{},", "{}]}"),
    "hits": filled('{"results":[{"vulns":[', '{"id":"x"},', '{"id":"x"}]}]}'),
}


def _compressed(raw: bytes) -> object:
    decompressor = Decompressor(REQUEST_LIMIT)
    pieces = (raw[start : start + 65_536] for start in range(0, len(raw), 65_536))
    count = sum(len(piece) for piece in decompressor.feed(pieces))
    decompressor.finish()
    return count


def _zeros(megabytes: int, level: int = 3, window: int = 0) -> Bomb:
    """A stream that decompresses to so many megabytes of zeros, from a window of 2**`window` bytes."""

    def make(_size: int) -> bytes:
        options = {zstd.CompressionParameter.compression_level: level}
        if window:
            options[zstd.CompressionParameter.window_log] = window
        compressor = zstd.ZstdCompressor(options=options)
        return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(megabytes)) + compressor.flush()

    return make


COMPRESSED: Mapping[str, Bomb] = {
    "zeros": _zeros(4096),
    "a window of 128 MiB": _zeros(256, window=27),
    "no zstd": filled("", "x"),
    "what does not get smaller": lambda size: zstd.compress(random.Random(3).randbytes(size - 256)),
    "streams after the end": lambda size: (zstd.compress(b"a") * (size // 10))[:size],
    "frames that are skipped": lambda size: b"\x50\x2a\x4d\x18\x00\x00\x00\x00" * (size // 8),
}

FRAMES: Mapping[str, Bomb] = {
    "empty objects": filled("", "\0" * 40),
    "a size beyond all": filled("", "\xff"),
    "an object that is cut": filled("\0" * 38 + "\x3f\0", "a"),
}


def _sealed(head: bytes, pairs: Callable[[int], bytes]) -> Bomb:
    """A cache of blob ids that is whole: `head`, as many bytes of `pairs` as there is room for, and their sha256."""

    def make(size: int) -> bytes:
        content = head + pairs(size - len(head) - 32)
        return content + sha256(content).digest()

    return make


BLOB_IDS: Mapping[str, Bomb] = {
    "pairs": _sealed(b"ashat-blobs/1 sha1\n", lambda size: random.Random(1).randbytes(size)),
    "one pair": _sealed(b"ashat-blobs/1 sha1\n", bytes),
    "no seal": filled("ashat-blobs/1 sha1\n", "a"),
}

_A = "a" * 64
_ROOT = Path(__file__).parents[2]
# What each reader reads, so that the bytes nobody thought of come near to it; JSON as values.
GOOD: Mapping[str, Any] = {
    "raos.toml": (_ROOT / "examples/raos/raos.toml").read_bytes(),
    "node.toml": b'role = "public"\ndata = "data"\nport = 1\npoll_interval = 1.5\n[app]\ncommand = ["a"]\n',
    "a policy": b"minutes = 5\nwarns = ['health']\n[time_limits]\napi = 3\n",
    "a manifest": {
        "format": "ashat-bundle/1",
        "modules": {
            "": [{"mode": 420, "path": "a", "sha256": _A, "size": 1}],
            "M": [{"mode": 493, "parts": [_A, _A], "path": "Modules/M/b", "sha256": _A, "size": 5_000_000}],
        },
    },
    "a module report": {"modules": [{"name": "Core", "version": "1", "status": "ok", "load_ms": 3, "error": None}]},
    "an OpenAPI document": {
        "openapi": "3.1.0",
        "servers": [{"url": "/{v}", "variables": {"v": {"default": "v1"}}}],
        "paths": {"/i/{item}": {"get": {"responses": {"200": {"$ref": "#/components/responses/ok"}}}}},
    },
    "requirements.txt": b"a==1\n-r other.txt\n-e git+https://u:p@h/x#egg=x\nb>=2,<3 ; python_version > '3' # c\n",
    "METADATA": b"Metadata-Version: 2.1\nName: a\nVersion: 1\n\nText\n",
    "uv.lock": b'[[package]]\nname = "a"\nversion = "1"\nsource = { registry = "https://pypi.org/simple" }\n',
    "pnpm-lock.yaml": b"lockfileVersion: '9.0'\npackages:\n  '@a/b@1.0.0(c@1)': {dev: true}\n  /a/1.0.0: {}\n",
    "yarn.lock": b'"@a/b@^1", a@npm:c@1:\n  version "1.0.0"\n  resolved "https://h/-/a.tgz"\n',
    "bun.lock": b'{"packages": {"a": ["a@1.0.0", "", {},],},}',
    "pom.xml": b"<project><dependencies><dependency><groupId>g</groupId></dependency></dependencies></project>",
    "go.mod": b"module a\ngo 1.16\nrequire (\n\ta.b/c v1.0.0 // x\n)\nreplace a.b/c => ../c\n",
    "Gemfile.lock": b"GEM\n  specs:\n    a (1.0-java)\nGIT\n    b (1)\n",
    "setup.cfg": b"[options]\ninstall_requires =\n  a==1\n  b\n",
    "a jar": zip_of(("META-INF/maven/g/a/pom.properties", b"groupId=g\nartifactId=a\nversion=1\n"), ("a.jar", b"PK")),
    "package-lock.json": {
        "packages": {"node_modules/a": {"version": "1.0.0", "link": False, "name": "a"}},
        "dependencies": {"b": {"version": "npm:c@1.0.0", "dependencies": {}}},
    },
    "an archive": gzip.compress(b"text\n" * 100),
    "a key or a store of keys": b"\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1\0\0\0\2\0\1a" + bytes(40),
    "RECORD": b"a/b.py,sha256=AAAA,3\na-1.dist-info/RECORD,,\n",
    "md5sums": b"0123456789abcdef0123456789abcdef  usr/bin/a\n",
    "node_modules": {"packages": {"node_modules/a": {"resolved": "https://r/a.tgz", "integrity": "sha512-A"}}},
    "a text searched for credentials": b"password = 'hunter2-hunter2'\nAKIAIOSFODNN7EXAMPLE\n",
    "a text whose changes are shown": b"a\nb\nc\n",
    "a record of OSV's": {
        "id": "X-1",
        "modified": "2026-01-01T00:00:00Z",
        "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
        "affected": [
            {
                "package": {"name": "a", "ecosystem": "PyPI"},
                "versions": ["1"],
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2"}]}],
            }
        ],
    },
    "an answer of OSV's": {"results": [{"vulns": [{"id": "X-1"}], "next_page_token": "a"}]},
    "a release document": {
        "format": 1,
        "channel": "stable",
        "target": "omega",
        "update_id": "UPD-1",
        "attempt": 1,
        "release_seq": 1,
        "bundle": _A,
        "evidence": _A,
        "expires": "2026-01-31T23:59:59Z",
    },
    "a provenance": {
        "format": "ashat-provenance/1",
        "build": {"payload": "AA==", "payloadType": "a", "signatures": [{"keyid": "a", "sig": "AA=="}]},
        "evidence": None,
    },
    "TUF metadata": json.loads(Metadata(Targets()).to_bytes()),
    "a change of keys": {
        "format": "ashat-change/1",
        "root": Metadata(Root()).to_bytes().decode(),
        "targets": Metadata(Targets()).to_bytes().decode(),
        "production": None,
        "replaces": None,
    },
    "a checkpoint": f"{_KEY}\n1\n{'A' * 43}=\n\n\u2014 {_KEY} {'A' * 88}\n".encode(),
    "a receipt": {
        "format": "ashat-receipt-2",
        "roots": ["a"],
        "targets": "a",
        "production": "a",
        "document": "a",
        "evidence": {"checks": []},
        "provenance": None,
        "log": {"checkpoint": "a", "consistency": [_A], "events": [{"index": 0, "leaf": {}, "proof": [_A]}]},
        "mainframe": "",
        "seal": "",
    },
    "a line of an export": {"checkpoint": "a", "format": "ashat-audit-2", "roots": {"omega": ["a"]}},
    "the log of a program": b"password = 'hunter2-hunter2'\nhttps://kim:hunter2@h/\n\x1b[2J\n",
    "the tokens of a node": {
        "tokens": [{"id": "a", "name": "a", "scopes": ["read"], "sha256": _A, "created": "2026-01-01T00:00:00Z"}]
    },
    "a cache of digests": {"format": "ashat-digests/1", "files": {"a": [1, 2, 3, 4, _A]}},
    "a cache of blob ids": BLOB_IDS["pairs"](500),
    "an operation asked of a node": {
        "action": "switch",
        "bundle": _A,
        "expected_current": None,
        "update_id": "UPD-1",
        "attempt": 1,
        "decision": None,
        "signed": {"document": "a", "production": "a"},
    },
}


def _changed(raw: bytes) -> str:
    """How a text differs from itself upside down."""
    return file_change("a", raw, b"\n".join(reversed(raw.split(b"\n"))))


READERS = (
    Reader("raos.toml", load_raos_toml, (BundleError,), SIZE_LIMIT, 128, 15, TOML),
    Reader("node.toml", in_file(lambda path: NodeConfig.load(path)), (UsageError,), NODE_LIMIT, 160, 30, TOML),
    Reader("a policy", in_file(read_policy), (UsageError,), POLICY_LIMIT, 160, 30, TOML),
    Reader("a manifest", Manifest.parse, (ManifestError,), MANIFEST_LIMIT, 256, 60, MANIFESTS),
    Reader("a module report", lambda raw: read_report("/modules", raw), (), REPORT_BYTES, 64, 10, JSON),
    Reader("an OpenAPI document", _openapi, (DocumentError,), OPENAPI_LIMIT, 192, 30, OPENAPI),
    Reader("requirements.txt", _lock_file("requirements.txt"), (), LOCK_LIMIT, 256, 60, LINES),
    Reader("METADATA", _lock_file("a-1.dist-info/METADATA"), (), LOCK_LIMIT, 384, 60, METADATA),
    Reader("uv.lock", _lock_file("uv.lock"), (), LOCK_LIMIT, 256, 60, TOML),
    Reader("package-lock.json", _lock_file("package-lock.json"), (), LOCK_LIMIT, 384, 60, JSON),
    Reader("pnpm-lock.yaml", _lock_file("pnpm-lock.yaml"), (), LOCK_LIMIT, 512, 60, YAML),
    Reader("yarn.lock", _lock_file("yarn.lock"), (), LOCK_LIMIT, 384, 60, BLOCKS),
    Reader("bun.lock", _lock_file("bun.lock"), (), LOCK_LIMIT, 512, 60, OF_BUN),
    Reader("pom.xml", _lock_file("pom.xml"), (), LOCK_LIMIT, 384, 60, XML),
    Reader("go.mod", _lock_file("go.mod"), (), LOCK_LIMIT, 384, 60, MODULES),
    Reader("Gemfile.lock", _lock_file("Gemfile.lock"), (), LOCK_LIMIT, 384, 60, GEMS),
    Reader("setup.cfg", _lock_file("setup.cfg"), (), SETTINGS_LIMIT, 64, 30, SETTINGS),
    Reader("a jar", _lock_file("a.jar"), (), ARCHIVE_BOMB, 512, 60, JARS),
    Reader(
        "a text searched for credentials",
        _secrets,
        (),
        TEXT_LIMIT,
        192,
        60,
        TEXTS,
    ),
    Reader("a text whose changes are shown", _changed, (), SHOWN_LIMIT, 64, 15, DIFFERENCES),
    Reader("an archive", _archive, (), HELD_LIMIT, 384, 120, ARCHIVES),
    Reader("a key or a store of keys", key_in, (), STORE_LIMIT, 32, 10, STORES),
    Reader("RECORD", _packages_files("a-1.dist-info/RECORD"), (), LIST_LIMIT, 192, 60, RECORD_LISTS),
    Reader("md5sums", _packages_files("var/lib/dpkg/info/a.md5sums"), (), LIST_LIMIT, 192, 60, SUMS),
    Reader("node_modules", _packages_files("node_modules/.package-lock.json"), (), LIST_LIMIT, 384, 60, JSON),
    Reader(
        "a record of OSV's", in_file(_copy, "record.json"), (AdvisoriesUnknownError,), RECORD_BYTES, 256, 30, RECORDS
    ),
    Reader(
        "an answer of OSV's", _Batch.model_validate_json, (ValidationError,), ANSWER_BYTES, 384, 30, {**JSON, **ANSWERS}
    ),
    Reader("a release document", ReleaseDocument.from_bytes, (MalformedMetadataError,), DOCUMENT_LIMIT, 32, 5, JSON),
    Reader("a provenance", read_provenance, (MalformedMetadataError,), PROVENANCE_LIMIT, 32, 5, JSON),
    Reader(
        "TUF metadata", lambda raw: parse(raw, Targets, "It"), (MalformedMetadataError,), METADATA_LIMIT, 256, 30, JSON
    ),
    Reader("a change of keys", Change.from_bytes, (MalformedMetadataError,), CHANGE_LIMIT, 192, 30, JSON),
    Reader(
        "a checkpoint",
        lambda raw: open_checkpoint(raw.decode("utf-8", "replace"), [VERIFIER]),
        (CheckpointError,),
        LONGEST_NOTE,
        64,
        10,
        NOTES,
    ),
    Reader("a receipt", Receipt.from_bytes, (ReceiptError,), RECEIPT_LIMIT, 256, 30, JSON),
    Reader("a line of an export", in_file(_export), (AuditError,), LINE_LIMIT, 384, 60, JSON),
    Reader("a key file", in_file(lambda path: load_public_key(path, "kim")), (KeyFileError,), 16 * 1024, 32, 5, JSON),
    Reader("the log of a program", in_file(_program_log, "app.log"), (), READ_BYTES, 32, 10, TEXTS),
    Reader(
        "the tokens of a node", in_file(lambda path: TokenFile(path).all()), (UsageError,), TOKENS_LIMIT, 64, 10, JSON
    ),
    Reader(
        "a state file",
        in_file(lambda path: read_json(path, limit=STATE_LIMIT)),
        (DocumentError,),
        STATE_LIMIT,
        32,
        5,
        JSON,
    ),
    Reader("a cache of digests", in_file(StatCache), (), STAT_CACHE_LIMIT, 384, 60, JSON),
    Reader("a cache of blob ids", in_file(BlobIds), (), BLOB_IDS_LIMIT, 192, 30, BLOB_IDS),
    Reader("frames of objects", _frames, (FrameError,), OBJECT_LIMIT, 32, 30, FRAMES),
    Reader("frames that come compressed", _compressed, (FrameError,), OBJECT_LIMIT, 48, 30, COMPRESSED),
    Reader("a file carried by hand", _carried, (CarriedFileError,), WORD_LIMIT, 384, 60, JSON),
    Reader(
        "an operation asked of a node",
        OperationRequest.model_validate_json,
        (ValidationError,),
        1024 * 1024,
        128,
        10,
        JSON,
    ),
)
