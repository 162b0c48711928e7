"""Everything that reads bytes of a release, a peer or another's file, with bombs for each, and what one may cost.

`bench/limits.py` measures them, tests/attacks/test_hostile_bytes.py holds them to it, and docs/limits.md lists them.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backports import zstd
from pydantic import ValidationError
from tuf.api.metadata import Metadata, Root, Targets

from ashat.audit.export import LINE_LIMIT, Export
from ashat.bundle.manifest import MANIFEST_LIMIT, Manifest
from ashat.bundle.stat_cache import FILE_LIMIT as STAT_CACHE_LIMIT
from ashat.bundle.stat_cache import StatCache
from ashat.cli.commands.policies import FILE_LIMIT as POLICY_LIMIT
from ashat.cli.commands.policies import read_policy
from ashat.common.documents import STATE_LIMIT, load_json, read_json
from ashat.errors import (
    AuditError,
    BundleError,
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
from ashat.node.core.config import FILE_LIMIT as NODE_LIMIT
from ashat.node.core.config import NodeConfig
from ashat.protocol.compression import Decompressor
from ashat.protocol.frames import FrameDecoder
from ashat.protocol.messages import OBJECT_LIMIT, REQUEST_LIMIT, OperationRequest
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
from tasks.checks.kit.openapi import DOCUMENT_LIMIT as OPENAPI_LIMIT
from tasks.checks.kit.openapi import Document
from tasks.checks.scan.credentials import find_secrets
from tasks.checks.scan.files import FILE_LIMIT as TEXT_LIMIT
from tasks.checks.scan.lockfiles import FILE_LIMIT as LOCK_LIMIT
from tasks.checks.scan.lockfiles import Declared, Package, read_declaration
from tasks.checks.scan.osv import AdvisoriesUnknownError
from tasks.checks.scan.osv_api import ANSWER_BYTES, _Batch
from tasks.checks.scan.osv_offline import RECORD_BYTES, read_copy

Bomb = Callable[[int], bytes]


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


def _secrets(raw: bytes) -> object:
    return find_secrets(raw.decode("utf-8", "replace"), "settings.py")


def _tokens(path: Path) -> object:
    return TokenFile(path).all()


def _state(path: Path) -> object:
    return read_json(path, limit=STATE_LIMIT)


def _export(path: Path) -> object:
    with Export(path) as export:
        return sum(1 for _ in export.items())


_FILE = '{"mode":420,"path":"%s","sha256":"' + "a" * 64 + '","size":1},'
_MANIFEST = '{"format":"ashat-bundle/1","modules":{"":['
MANIFESTS: Mapping[str, Bomb] = {
    **JSON,
    "deep paths": numbered(_FILE % ("%07d/" + "a/" * 500 + "x"), _MANIFEST, "]}}"),
    "deep paths that are allowed": numbered(_FILE % ("%07d/" + "a/" * 60 + "x"), _MANIFEST, "]}}"),
    "files": numbered(_FILE % "dir/file-%07d.txt", _MANIFEST, "]}}"),
    "files as small as they may be": filled(_MANIFEST, _FILE % "a", (_FILE % "a").removesuffix(",") + "]}}"),
    "objects that are no files": filled(_MANIFEST, '{"a":0},', "{}]}}"),
    "beginnings of files": filled(_MANIFEST, '{"mode":420,"path":"'),
    "parts": filled(_MANIFEST + '{"mode":420,"parts":[', f'"{"a" * 64}",'),
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
    "package-lock.json": {
        "packages": {"node_modules/a": {"version": "1.0.0", "link": False, "name": "a"}},
        "dependencies": {"b": {"version": "npm:c@1.0.0", "dependencies": {}}},
    },
    "a text searched for credentials": b"password = 'hunter2-hunter2'\nAKIAIOSFODNN7EXAMPLE\n",
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
    "the tokens of a node": {
        "tokens": [{"id": "a", "name": "a", "scopes": ["read"], "sha256": _A, "created": "2026-01-01T00:00:00Z"}]
    },
    "a cache of digests": {"format": "ashat-digests/1", "files": {"a": [1, 2, 3, 4, _A]}},
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
    Reader(
        "a text searched for credentials",
        _secrets,
        (),
        TEXT_LIMIT,
        64,
        120,
        TEXTS,
    ),
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
    Reader("frames of objects", _frames, (FrameError,), OBJECT_LIMIT, 32, 30, FRAMES),
    Reader("frames that come compressed", _compressed, (FrameError,), OBJECT_LIMIT, 48, 30, COMPRESSED),
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
