"""A world of signed releases: approvers with real keys, a repository, and a server that may be hostile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, Targets

from ashat.client.http import Transport
from ashat.errors import AshatError
from ashat.trust.keys.files import NAME_FIELD
from ashat.trust.release.repository import OnlineKeys, Repository
from ashat.trust.tuf.metadata import (
    PRODUCTION,
    Holders,
    Lifetimes,
    Roles,
    build_production,
    build_root,
    build_targets,
    sign,
)
from ashat.trust.tuf.release_document import ReleaseDocument
from ashat.trust.update_client.client import ReleaseClient
from ashat.trust.update_client.fetcher import FILE_SECONDS, RemoteRepository

LIFETIMES = Lifetimes()
Answer = Callable[[BaseHTTPRequestHandler], None]


def key_pair(name: str) -> CryptoSigner:
    signer = CryptoSigner.generate_ed25519()
    signer.public_key.unrecognized_fields[NAME_FIELD] = name
    return signer


def held_by(people: Holders, **others: Any) -> Roles:
    """Roles that `people` hold, OMEGA's own by keys that nobody has; `others` are held otherwise."""
    given = dict.fromkeys(("root", "targets", "approvers"), people)
    online = {role: key_pair(role).public_key for role in ("snapshot", "timestamp")}
    return Roles(**(given | online | others))


def document(seq: int, *, channel: str = "stable", target: str = "omega", **changes: object) -> ReleaseDocument:
    given = {
        "channel": channel,
        "target": target,
        "update_id": f"UPD-{seq}",
        "attempt": 1,
        "release_seq": seq,
        "bundle": f"{seq:064x}",
        "evidence": f"{seq + 1000:064x}",
        "expires": datetime.now(UTC) + timedelta(days=30),
    }
    return ReleaseDocument.model_validate(given | changes)


@dataclass
class World:
    """`held` are offline keys of root and targets (2 of 2), `approvers` those of production (2 of 3)."""

    directory: Path
    held: list[CryptoSigner] = field(default_factory=lambda: [key_pair("ruth"), key_pair("omar")])
    approvers: list[CryptoSigner] = field(default_factory=lambda: [key_pair(name) for name in ("kim", "lee", "noa")])
    online: OnlineKeys = field(default_factory=lambda: OnlineKeys(key_pair("snapshot"), key_pair("timestamp")))
    version: int = 0
    target: str = "omega"
    named: bool = False
    """Whether root and targets say that they are of `target`, as those from before do not."""

    def __post_init__(self) -> None:
        self.repository = Repository(self.directory, target=self.target)
        root, targets = self.offline(self.approvers)
        self.root = root
        self.repository.install(self.online, root=root, targets=targets)

    def offline(
        self,
        approvers: list[CryptoSigner],
        *,
        now: datetime | None = None,
        builders: Sequence[CryptoSigner] = (),
        verifiers: Sequence[CryptoSigner] = (),
    ) -> tuple[bytes, bytes]:
        """Root and targets of the next version, signed; the same root keys, those approvers and machines."""
        keys = [signer.public_key for signer in approvers]
        return self.offline_with(keys, now=now, builders=builders, verifiers=verifiers)

    def offline_with(
        self,
        approvers: list[SSlibKey],
        *,
        now: datetime | None = None,
        builders: Sequence[CryptoSigner] = (),
        verifiers: Sequence[CryptoSigner] = (),
    ) -> tuple[bytes, bytes]:
        """`offline`, where only the public halves of the approvers' keys are here."""
        now, self.version = now or datetime.now(UTC), self.version + 1
        holders = Holders([signer.public_key for signer in self.held], 2)
        roles = Roles(
            holders,
            holders,
            Holders(approvers, 2),
            self.online.snapshot.public_key,
            self.online.timestamp.public_key,
            [signer.public_key for signer in builders],
            [signer.public_key for signer in verifiers],
        )
        name = self.target if self.named else ""
        root = build_root(roles, lifetime=LIFETIMES.root, now=now, version=self.version, target=name)
        targets = build_targets(roles, lifetime=LIFETIMES.targets, now=now, version=self.version, target=name)
        for signer in self.held:
            sign(root.signed, "root", root, signer)
            sign(root.signed, "targets", targets, signer)
        return root.to_bytes(), targets.to_bytes()

    def approve(
        self,
        made: ReleaseDocument | None,
        *signers: CryptoSigner,
        now: datetime | None = None,
        lifetime: float = LIFETIMES.production,
    ) -> Metadata[Targets]:
        """The next production metadata, with a valid signature of each, whoever they are."""
        state = self.repository.read()
        metadata = build_production(state.production, made, lifetime=lifetime, now=now or datetime.now(UTC))
        for signer in signers or self.approvers[:2]:
            metadata.sign(signer, append=True)
        return metadata

    def publish(self, made: ReleaseDocument, *signers: CryptoSigner) -> None:
        self.repository.publish(self.approve(made, *signers).to_bytes(), made.to_bytes(), self.online)

    def force(self, name: str, content: bytes) -> None:
        """Put a file there as a thief of OMEGA's storage would."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def sign_online(self, **files: bytes) -> None:
        """Make files current with the online keys, unchecked, as a thief of OMEGA and its online keys would."""
        state = self.repository.read()
        now = datetime.now(UTC)
        for name, content in self.repository._plan(state, self.online, now, **files):  # type: ignore[arg-type]
            self.force(name, content)


class Server:
    """Serves a directory on loopback; `answers` replace what it says at a path, `asked` are the paths asked for."""

    def __init__(self, directory: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                special = outer.answers.get(self.path)
                if special:
                    special(self)
                    return
                path = directory / self.path.lstrip("/")
                reply(self, 200, path.read_bytes()) if path.is_file() else reply(self, 404, b"not here")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    server = Server(directory)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def mainframe(
    server: Server, world: World, cache: Path, file_seconds: float = FILE_SECONDS, **options: object
) -> Iterator[ReleaseClient]:
    with Transport(server.url, name="OMEGA") as transport:
        given = {"root": world.root, "target": "omega"} | options
        yield ReleaseClient(RemoteRepository(transport, file_seconds=file_seconds), cache, **given)  # type: ignore[arg-type]


def saved(world: World) -> dict[Path, bytes]:
    """Every file of the repository."""
    return {path: path.read_bytes() for path in world.directory.rglob("*") if path.is_file()}


def restore(world: World, files: dict[Path, bytes]) -> None:
    """Put the repository back to what was saved."""
    for path in saved(world).keys() - files.keys():
        path.unlink()
    for path, content in files.items():
        path.write_bytes(content)


def refused(client: ReleaseClient, kind: type[AshatError], told: str = "", channel: str = "stable") -> None:
    """See that the Mainframe takes nothing, and says so in a line by exactly that error."""
    with pytest.raises(kind) as error:
        client.latest_release(channel)
    assert told in str(error.value)
    assert type(error.value) is kind
    assert "\n" not in str(error.value)


__all__ = ["PRODUCTION", "Server", "World", "document", "key_pair", "mainframe", "reply", "serving"]
