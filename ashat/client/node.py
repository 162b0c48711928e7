"""A node as seen from outside: each call of `docs/node-api.md` as a method, with the types of `protocol.messages`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar, Unpack
from urllib.parse import quote

from pydantic import BaseModel

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.bundle.pack import Packed
from ashat.client import transfer
from ashat.client.http import DEFAULT_TIMEOUTS, RequestOptions, Timeouts, Transport
from ashat.client.transfer import BundleStore, Progress, TransferReport
from ashat.errors import (
    NodeRefusedError,
    NodeUnreachableError,
    WrongRoleError,
)
from ashat.protocol.messages import (
    DatabaseProbe,
    DatabaseProbeRequest,
    HealthProbe,
    Identity,
    Lease,
    LeaseRequest,
    LicenceRequest,
    LogLeaves,
    LogState,
    Mainframe,
    ModulesProbe,
    NodeState,
    Offer,
    Operation,
    OperationRequest,
    Role,
    SignedCheckpoint,
    TokenInfo,
    Tree,
    TrustMetadata,
    TrustState,
)

# Of every file of a release, or of every Mainframe.
LIST_LIMIT = 32 * 1024 * 1024
_Message = TypeVar("_Message", bound=BaseModel)


def none_if_not_found(ask: Callable[[], _Message]) -> _Message | None:
    """Ask for what an older node does not have: None where it answers 404."""
    try:
        return ask()
    except NodeRefusedError as error:
        if error.status == 404:
            return None
        raise


class NodeClient:
    """One node. Close it, or use it in a `with` block; safe to use from many threads.

    Every method that asks raises `NodeError`, of the class that says whose fault it is (`ashat.errors`).
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: str | Path | None = None,
        insecure_http: bool = False,
        name: str = "",
        expect_role: Role | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        """`ca` is a PEM file or PEM text, `name` what messages call the server.

        Raises:
            UsageError: the address, the CA, or a token over plain http to another machine.
        """
        self.transport = Transport(url, token=token, ca=ca, insecure_http=insecure_http, timeouts=timeouts, name=name)
        self.expect_role = expect_role

    @property
    def name(self) -> str:
        """What messages call the server."""
        return self.transport.name

    @property
    def url(self) -> str:
        """Its address."""
        return self.transport.url

    def close(self) -> None:
        """Close every connection."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Who it is

    def identity(self) -> Identity:
        """Ask who the node is; needs no token."""
        return self._get(Identity, "/v1/identity")

    def check_role(self) -> Identity:
        """Ask who the node is, and see that it is what `expect_role` says.

        Raises:
            WrongRoleError: it is another kind of server.
        """
        identity = self.identity()
        self._check(identity.role)
        return identity

    def state(self) -> NodeState:
        """Everything the node says about itself.

        Raises:
            WrongRoleError: it is another kind of server than `expect_role`.
        """
        state = self._get(NodeState, "/v1/state")
        self._check(state.role)
        return state

    def token(self) -> TokenInfo:
        """Ask for the token that this client asks with, as the node keeps it."""
        return self._get(TokenInfo, "/v1/token")

    def checkpoint(self, since: int = 0) -> SignedCheckpoint | None:
        """Ask for a checkpoint of its change log, proved to continue the one of size `since`; None of an old node."""
        return none_if_not_found(lambda: self._get(SignedCheckpoint, "/v1/journal/checkpoint", params={"since": since}))

    def metrics(self) -> str:
        """Ask for its figures, as Prometheus text."""
        return self.transport.request("GET", "/metrics").content.decode("utf-8", "replace")

    # Bytes

    def push_bundle(self, packed: Packed, *, progress: Progress | None = None) -> TransferReport:
        """Send what the node lacks of a bundle; see `ashat.client.transfer.push_bundle`.

        Raises:
            WrongRoleError: it is another kind of server than `expect_role`; it was sent nothing.
        """
        self._check_first()
        return transfer.push_bundle(self.transport, packed, progress=progress)

    def pull_bundle(
        self,
        digest: str,
        store: BundleStore,
        *,
        prefix: str = "/v1",
        progress: Progress | None = None,
    ) -> TransferReport:
        """Fetch what `store` lacks of a bundle; see `ashat.client.transfer.pull_bundle`."""
        return transfer.pull_bundle(self.transport, digest, store, prefix=prefix, progress=progress)

    def relay_bundle(self, target: NodeClient, digest: str, *, progress: Progress | None = None) -> TransferReport:
        """Copy a bundle from this node to `target`; see `ashat.client.transfer.relay_bundle`.

        Raises:
            WrongRoleError: one of them is another kind of server than its `expect_role`; nothing was sent.
        """
        self._check_first()
        target._check_first()
        return transfer.relay_bundle(self.transport, target.transport, digest, progress=progress)

    def abandon(self, digest: str) -> None:
        """Have the node drop what came of a bundle that is not sent any more; one of before keeps it for a day."""
        try:
            self.transport.request("DELETE", f"/v1/staging/{digest}")
        except NodeRefusedError as error:
            if error.status != 404:
                raise

    def manifest(self, digest: str) -> Manifest:
        """Fetch a bundle's manifest, verified.

        Raises:
            IntegrityError: the node sent another one.
        """
        return transfer.fetch_manifest(self.transport, digest)

    def head_of(self, file: FileEntry, size: int) -> bytes:
        """Fetch the first `size` bytes of a file of a bundle, or fewer, as the node sends them: not verified."""
        digest, _ = next(iter(file.objects()))
        answer = self.transport.request("GET", f"/v1/objects/{digest}", headers={"Range": f"bytes=0-{size - 1}"})
        return answer.content[:size]

    def file_bytes(self, manifest: Manifest, path: str) -> bytes:
        """Fetch one file of a bundle, verified.

        Raises:
            KeyError: the bundle has no such file.
            IntegrityError: the node sent other bytes.
        """
        return next(self.files_bytes([manifest.by_path[path]]))

    def files_bytes(self, files: Iterable[FileEntry]) -> Iterator[bytes]:
        """Fetch files of a bundle, in order, each verified; in one request, and a file at a time in memory.

        Raises:
            IntegrityError: the node sent other bytes.
        """
        wanted = list(files)
        objects = transfer.fetch_objects(self.transport, [digest for file in wanted for digest, _ in file.objects()])
        for file in wanted:
            yield b"".join(next(objects)[1] for _ in file.objects())

    # The lease

    def acquire_lease(self, request: LeaseRequest) -> Lease:
        """Have the server, or have it for longer; 423 (`NodeRefusedError`) names who has it."""
        return self._send(Lease, "PUT", "/v1/lease", request)

    def release_lease(self, holder: str) -> None:
        """Give the server back; no matter if it was not held."""
        self.transport.request("DELETE", "/v1/lease", params={"holder": holder})

    # What runs

    def start_operation(self, operation_id: str, request: OperationRequest) -> Operation:
        """Have the node begin a change; asking again with the same id and request is safe."""
        return self._send(Operation, "PUT", _operation_path(operation_id), request)

    def operation(self, operation_id: str, wait: float = 0) -> Operation:
        """Ask for the operation, waiting up to `wait` seconds (at most 60) for it to end."""
        options: RequestOptions = {"params": {"wait": wait}, "timeout": wait + DEFAULT_TIMEOUTS.read} if wait else {}
        return self._get(Operation, _operation_path(operation_id), **options)

    def wait_operation(self, operation_id: str, timeout: float = 600, *, patience: float = 30) -> Operation:
        """Wait for the operation to end. A node that is away for less than `patience` seconds is waited for.

        Raises:
            NodeUnreachableError: it did not end within `timeout` seconds, or the node stayed away.
        """
        deadline = time.monotonic() + timeout
        answered = time.monotonic()
        while True:
            left = deadline - time.monotonic()
            try:
                operation = self.operation(operation_id, wait=max(min(left, 20.0), 0.0))
                answered = time.monotonic()
                if operation.status != "running":
                    return operation
            except NodeUnreachableError as error:
                if not error.transient or time.monotonic() - answered > patience:
                    raise
                time.sleep(0.2)
            if time.monotonic() >= deadline:
                raise NodeUnreachableError(
                    f"{self.name}: the operation {operation_id!r} did not end within {timeout:g} s; ask again later.",
                    server=self.name,
                )

    # Probes

    def probe_health(self) -> HealthProbe:
        """Have the program's health asked now."""
        return self._get(HealthProbe, "/v1/probes/health")

    def probe_modules(self) -> ModulesProbe:
        """Have the program's report of its modules asked now."""
        return self._get(ModulesProbe, "/v1/probes/modules")

    def probe_database(self, request: DatabaseProbeRequest) -> DatabaseProbe:
        """Have the node look at the program's database now."""
        return self._send(DatabaseProbe, "POST", "/v1/probes/database", request)

    def tree(self) -> Tree:
        """Have the running release hashed now, as it lies on the node's disk."""
        return self.transport.read(Tree, self.transport.request("GET", "/v1/tree", limit=LIST_LIMIT).content)

    # OMEGA

    def put_offer(self, offer: Offer) -> Offer:
        """Let Mainframes have what OMEGA runs."""
        return self._send(Offer, "PUT", "/v1/offer", offer)

    def mainframes(self) -> list[Mainframe]:
        """List every licensed install that OMEGA knows."""
        found = self.transport.json("GET", "/v1/mainframes", limit=LIST_LIMIT).get("mainframes")
        return [self.transport.read(Mainframe, item) for item in found] if isinstance(found, list) else []

    def trust(self) -> TrustState:
        """Ask whose signatures OMEGA demands, and what they signed last."""
        return self._get(TrustState, "/v1/trust")

    def put_trust(self, given: TrustMetadata) -> TrustState:
        """Have OMEGA keep what was signed offline. The same again changes nothing.

        Raises:
            NodeConflictError: it does not follow from what OMEGA keeps.
        """
        return self._send(TrustState, "PUT", "/v1/trust", given)

    def put_log(self, given: LogLeaves) -> LogState:
        """Have OMEGA keep the log that a signed release names. The same again changes nothing.

        Raises:
            NodeConflictError: it does not continue what OMEGA keeps.
        """
        return self._send(LogState, "PUT", "/v1/log", given)

    def put_licence(self, request: LicenceRequest) -> Mainframe:
        """Have OMEGA honour a licence."""
        return self._send(Mainframe, "PUT", "/v1/licences", request)

    def _check_first(self) -> None:
        if self.expect_role is not None:
            self.check_role()

    def _check(self, role: Role) -> None:
        if self.expect_role is not None and role is not self.expect_role:
            raise WrongRoleError(
                f"{self.name} at {self.url} is a server of the role {role}, not {self.expect_role}; "
                "check which address is configured for which.",
                server=self.name,
            )

    def _get(self, kind: type[_Message], path: str, **options: Unpack[RequestOptions]) -> _Message:
        return self.transport.read(kind, self.transport.json("GET", path, **options))

    def _send(self, kind: type[_Message], method: str, path: str, message: BaseModel) -> _Message:
        body = message.model_dump(mode="json", by_alias=True)
        return self.transport.read(kind, self.transport.json(method, path, json=body))


def _operation_path(operation_id: str) -> str:
    return f"/v1/operations/{quote(operation_id, safe='')}"
