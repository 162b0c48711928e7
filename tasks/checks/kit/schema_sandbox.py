"""Applies a release's regular expressions and JSON Schemas to its answers, in a process with limits of its own.

An expression can take years over a line of text, and a schema can be as bad; neither can be interrupted from within.
So `schema_worker` does the work, with a limit on its processor time and on its memory; where it dies of them, that is
the result, and the next request gets a new process.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote, unquote, urlsplit

from ashat.bundle.manifest import Manifest
from ashat.common.documents import load_json
from ashat.errors import AshatError, DocumentError
from tasks.checks.kit.base import one_line

SECONDS = 2.0
SCHEMA_LIMIT = 1024 * 1024
DOCUMENTS_LIMIT = 100
BUNDLE = "file:///"
_PROGRAM = Path(__file__).with_name("schema_worker.py")
_ENVIRONMENT = ("HOME", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH")

Dialect = Literal["json-schema", "3.0", "3.1", "3.2"]


class SandboxError(AshatError):
    """A pattern or a schema could not be applied; the message says why, without naming it."""


class Breach(NamedTuple):
    """One way in which JSON breaks a schema: where, the value there as JSON ("" where it says nothing), and how."""

    where: str
    value: str
    rest: str


class SchemaSandbox:
    """The process, as a context manager. `read` gives a file of the bundle, or raises `SandboxError`."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._documents: dict[str, Any] = {}
        self._checked: set[str] = set()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def found(self, pattern: str, text: str) -> bool:
        """Search `text` for the regular expression.

        Raises:
            SandboxError: it takes too long.
        """
        return bool(self._ask({"do": "match", "pattern": pattern, "text": text})["found"])

    def learn(self, uri: str, document: Any) -> None:
        """Register a document, so that schemas can be found in it."""
        if uri not in self._documents:
            self._documents[uri] = document
            if self._process is not None:
                self._exchange({"do": "learn", "uri": uri, "document": document})

    def schema(self, declared: str | Mapping[str, Any]) -> str:
        """Register a schema as raos.toml declares it, a table or the path of a file of the bundle; return its URI.

        Raises:
            SandboxError: the file is missing, too large, or no JSON.
        """
        if isinstance(declared, str):
            uri = BUNDLE + quote(declared)
            if uri not in self._documents:
                self._load(uri)
            return uri
        text = json.dumps(declared, sort_keys=True)
        uri = f"{BUNDLE}raos.toml?{hashlib.sha256(text.encode('utf-8')).hexdigest()}"
        self.learn(uri, declared)
        return uri

    def check(self, uri: str) -> None:
        """Check that a schema is one, and that each file of the bundle which it refers to is one.

        Raises:
            SandboxError: one is none, or refers to what is not in the bundle.
        """
        waiting = [uri]
        while waiting:
            each = waiting.pop()
            self._checked.add(each)
            try:
                self._ask({"do": "check", "uri": each})
            except SandboxError as error:
                name = "" if each == uri else f"{_path(each)}: "
                raise SandboxError(f"{name}{error}") from None
            waiting = [known for known in self._documents if known not in self._checked]

    def validate(self, schema: str, body: str, dialect: Dialect = "json-schema") -> tuple[list[Breach], int]:
        """Validate the JSON text `body` by the schema at a URI, which may have a JSON Pointer as its fragment.

        Returns the first few breaches, and how many more there are at least.

        Raises:
            SandboxError: the schema is none, refers to what is not in the bundle, or takes too long.
        """
        reply = self._ask({"do": "validate", "schema": schema, "dialect": dialect, "json": body})
        return [Breach(*error) for error in reply["errors"]], reply["more"]

    def _load(self, uri: str) -> None:
        path = _path(uri)
        raw = self._read(path)
        try:
            self.learn(uri, load_json(raw, limit=len(raw)))
        except DocumentError as error:
            raise SandboxError(f"{path} is no JSON that can be read: {error}") from None

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        for _ in range(DOCUMENTS_LIMIT):
            reply = self._exchange(request)
            if trouble := reply.get("trouble"):
                raise SandboxError(one_line(trouble))
            if "missing" not in reply:
                return reply
            for uri in reply["missing"]:
                if not uri.startswith(BUNDLE):
                    raise SandboxError(f"it refers to {one_line(uri)}, and nothing is fetched: put it into the bundle")
                self._load(uri)
        raise SandboxError(f"it refers to more than {DOCUMENTS_LIMIT} files")

    def _exchange(self, request: Mapping[str, Any]) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"seconds": SECONDS, **request}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        status = self._end()
        if status == -signal.SIGVTALRM:
            raise SandboxError(f"it takes more than {SECONDS:g} s on this answer: simplify it")
        raise SandboxError(f"the process that judges it ended with status {status}")

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            # -P: this directory has modules named like those of the standard library.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                text=True,
                encoding="ascii",
            )
            for uri, document in self._documents.items():
                self._exchange({"do": "learn", "uri": uri, "document": document})
        return self._process

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what it never read goes with it
                    pipe.close()
        return status


def bundle_reader(manifest: Manifest, source: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Make the function that a `SchemaSandbox` reads files of a bundle with, of at most `SCHEMA_LIMIT` bytes each."""

    def read(path: str) -> bytes:
        entry = manifest.by_path.get(path)
        if entry is None:
            raise SandboxError(f"{one_line(path)} is not in the bundle")
        if entry.size > SCHEMA_LIMIT:
            raise SandboxError(f"{one_line(path)} has {entry.size} bytes; at most {SCHEMA_LIMIT} are read")
        return source(path)

    return read


def _path(uri: str) -> str:
    return unquote(urlsplit(uri).path).lstrip("/")
