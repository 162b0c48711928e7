"""A node as seen from outside: each call of `docs/node-api.md` as a method, with the types of `protocol.messages`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Self, TypeVar, Unpack
from urllib.parse import quote, urlencode

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
from ashat.protocol.carried import WORD_LIMIT, CarriedReport, OmegaWord
from ashat.protocol.fleet import (
    CohortTroubles,
    FailureGroup,
    Freeze,
    FreezeRequest,
    Mainframe,
    MainframeLabels,
    MainframeReport,
    MainframeThen,
    MemberState,
    OpenWaves,
    Override,
    Retried,
    RolloutAction,
    RolloutMember,
    RolloutRequest,
    RolloutState,
    RolloutStep,
    RolloutWord,
)
from ashat.protocol.licences import LicenceKept, LicenceRequest, LicenceRequests, LicenceState, LicenceTerm
from ashat.protocol.messages import (
    Identity,
    Lease,
    LeaseRequest,
    LogLeaves,
    LogState,
    Migration,
    NodeState,
    Offer,
    Operation,
    OperationRequest,
    ProgramLog,
    Role,
    SignedCheckpoint,
    TokenInfo,
    Tree,
    TrustMetadata,
    TrustState,
)
from ashat.protocol.probes import (
    DatabaseProbe,
    DatabaseProbeRequest,
    HealthProbe,
    LoggedErrors,
    ModulesProbe,
    ProcessProbe,
    ReleaseProbe,
)
from ashat.rollouts.policy import RolloutPolicy

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
        for left, file in zip(reversed(range(len(wanted))), wanted, strict=True):
            content = b"".join(next(objects)[1] for _ in file.objects())
            if not left:
                next(objects, None)  # to the answer's end, so that its connection serves the next request
            yield content

    def migrated(self, bundle: str | None) -> Migration | None:
        """Ask what came of the migrate step by which the server came to run `bundle`; None where there was none."""
        last = self.state().operation
        return last.migration if last is not None and last.to == bundle else None

    def program_log(self, lines: int = 100, after: int | None = None, *, migrate: bool = False) -> ProgramLog:
        """Ask for the last lines that the program wrote, or the migrate steps, or for those after the first `after`
        bytes of that log."""
        params: dict[str, int | str] = {"lines": lines} if after is None else {"lines": lines, "after": after}
        if migrate:
            params["of"] = "migrate"
        return self._get(ProgramLog, "/v1/logs", params=params)

    def logged_errors(self, after: int | None = None) -> LoggedErrors:
        """Ask for the errors and tracebacks that the program logged since its start, or after `after` bytes."""
        return self._get(LoggedErrors, "/v1/logs/errors", params={} if after is None else {"after": after})

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
        """Wait for the operation to end. A node that is away for less than `patience` seconds is waited for, and a
        migrate step for as long as it may take beside `timeout`.

        Raises:
            NodeUnreachableError: it did not end within `timeout` seconds, or the node stayed away.
        """
        began = answered = time.monotonic()
        deadline = began + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                operation = self.operation(operation_id, wait=max(min(left, 20.0), 0.0))
                answered = time.monotonic()
                if operation.status != "running":
                    return operation
                if operation.migration:
                    deadline = began + timeout + operation.migration.limit
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

    def probe_health(self, slot: str | None = None) -> HealthProbe:
        """Have the program's health asked now; with `slot` of what runs in that one."""
        return self._get(HealthProbe, "/v1/probes/health", params={"slot": slot} if slot else None)

    def probe_process(self, slot: str | None = None) -> ProcessProbe:
        """Have the node look at the program's processes now; with `slot` of what runs in that one."""
        return self._get(ProcessProbe, "/v1/probes/process", params={"slot": slot} if slot else None)

    def probe_release(self, seconds: float = 20.0) -> ReleaseProbe:
        """Have the node compare the running release, as it lies on its disk, with its manifest, within `seconds`."""
        timeout = seconds + DEFAULT_TIMEOUTS.read
        return self._get(ReleaseProbe, "/v1/probes/release", params={"seconds": seconds}, timeout=timeout)

    def probe_modules(self, slot: str | None = None) -> ModulesProbe:
        """Have the program's report of its modules asked now; with `slot` of what runs in that one."""
        return self._get(ModulesProbe, "/v1/probes/modules", params={"slot": slot} if slot else None)

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

    def begin_rollout(self, rollout: str, offer: Offer, policy: RolloutPolicy, override: str = "") -> RolloutState:
        """Begin to roll out what OMEGA runs; to begin it again changes nothing."""
        wanted = RolloutRequest(offer=offer, policy=policy, override=override)
        return self._send(RolloutState, "PUT", _rollout(rollout), wanted)

    def rollout(self, rollout: str) -> RolloutState:
        """Ask how a rollout goes."""
        return self._get(RolloutState, _rollout(rollout))

    def rollouts(self, limit: int = 20) -> list[RolloutState]:
        """List the newest rollouts."""
        return self._list(RolloutState, f"/v1/rollouts?limit={limit}", "rollouts")

    def open_waves(self, rollout: str, through: int, why: str) -> RolloutState:
        """Open the waves of a rollout up to that number, from 0."""
        return self._send(RolloutState, "POST", f"{_rollout(rollout)}/open", OpenWaves(through=through, why=why))

    def decide_rollout(self, rollout: str, action: RolloutAction, why: str, by: str = "") -> RolloutState:
        """Pause a rollout, resume it, have people asked, abort it, or call it complete."""
        word = RolloutWord(why=why, by=by)
        return self._send(RolloutState, "POST", f"{_rollout(rollout)}/{action}", word)

    def override_freezes(self, rollout: str, why: str, by: str = "") -> RolloutState:
        """Let a rollout go to the Mainframes that a window or a freeze holds, too."""
        return self._send(RolloutState, "POST", f"{_rollout(rollout)}/override-freeze", Override(why=why, by=by))

    def freezes(self) -> list[Freeze]:
        """List the windows and freezes of the fleet."""
        return self._list(Freeze, "/v1/freezes", "freezes")

    def add_freeze(self, wanted: FreezeRequest) -> Freeze:
        """Have OMEGA keep a window or a freeze of the fleet."""
        return self._send(Freeze, "POST", "/v1/freezes", wanted)

    def remove_freeze(self, identity: str) -> None:
        """Have OMEGA forget a window or a freeze of the fleet."""
        self.transport.request("DELETE", f"/v1/freezes/{quote(identity, safe='')}")

    def retry_rollout(self, rollout: str, by: str = "") -> int:
        """Have those Mainframes try again that failed, or were not reached; count them."""
        return self._send(Retried, "POST", f"{_rollout(rollout)}/retry", RolloutWord(by=by)).mainframes

    def rollout_members(
        self, rollout: str, states: Sequence[MemberState] = (), wave: int | None = None, limit: int = 100
    ) -> list[RolloutMember]:
        """List Mainframes of a rollout, those whose state changed last first."""
        asked = [("limit", str(limit)), *(("state", state) for state in states)]
        asked += [("wave", str(wave))] if wave is not None else []
        return self._list(RolloutMember, f"{_rollout(rollout)}/members?{urlencode(asked)}", "members")

    def rollout_failures(self, rollout: str) -> list[FailureGroup]:
        """List who failed or was not reached in a rollout, by what they said, the largest groups first."""
        return self._list(FailureGroup, f"{_rollout(rollout)}/failures", "failures")

    def rollout_progress(self, rollout: str) -> list[RolloutStep]:
        """List when Mainframes of a rollout came to run it, failed or were given up, the oldest first."""
        return self._list(RolloutStep, f"{_rollout(rollout)}/progress", "steps")

    def rollout_troubles(self, rollout: str) -> CohortTroubles:
        """Ask what those reported who have a rollout's release, and those who have it not."""
        return self._get(CohortTroubles, f"{_rollout(rollout)}/cohorts")

    def fleet_at(self, moment: datetime) -> list[MainframeThen]:
        """List what each Mainframe had reported to run by that time."""
        at = urlencode({"at": moment.isoformat()})
        return self._list(MainframeThen, f"/v1/mainframes/then?{at}", "mainframes")

    def label(self, mainframe: str, labels: dict[str, str]) -> Mainframe:
        """Give the Mainframe with the licence of that id those labels, and no others."""
        path = f"/v1/mainframes/{quote(mainframe, safe='')}/labels"
        return self._send(Mainframe, "PUT", path, MainframeLabels(labels=labels))

    def mainframes(self) -> list[Mainframe]:
        """List every licensed install that OMEGA knows."""
        return self._list(Mainframe, "/v1/mainframes", "mainframes")

    def mainframe_reports(self, mainframe: str) -> list[MainframeReport]:
        """List what the Mainframe of that id reported, newest first, 100 reports at most."""
        found = self.transport.json("GET", f"/v1/mainframes/{quote(mainframe, safe='')}/reports").get("reports")
        return [self.transport.read(MainframeReport, item) for item in found] if isinstance(found, list) else []

    def word_for(self, mainframe: str) -> OmegaWord:
        """Ask what OMEGA would say now to the Mainframe of that id, to be carried there by hand."""
        path = f"/v1/mainframes/{quote(mainframe, safe='')}/word"
        return self.transport.read(OmegaWord, self.transport.json("GET", path, limit=WORD_LIMIT))

    def put_carried_report(self, report: CarriedReport) -> Mainframe:
        """Have OMEGA take in what a Mainframe reported by a file.

        Raises:
            NodeConflictError: that Mainframe did not write it, or has reported on a later release since.
        """
        return self._send(
            Mainframe, "POST", f"/v1/mainframes/{quote(report.mainframe, safe='')}/carried-report", report
        )

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

    def put_licences(self, wanted: Sequence[LicenceRequest]) -> list[LicenceKept]:
        """Have OMEGA honour licences, or renew those that it keeps: all of them or none."""
        body = LicenceRequests(licences=list(wanted)).model_dump(mode="json")
        found = self.transport.json("POST", "/v1/licences", json=body, limit=LIST_LIMIT).get("licences")
        return [self.transport.read(LicenceKept, item) for item in found] if isinstance(found, list) else []

    def licences(self) -> list[LicenceState]:
        """List every licence that OMEGA keeps, by name."""
        return self._list(LicenceState, "/v1/licences", "licences")

    def renew_licence(self, licence: str, expires: datetime | None) -> LicenceState:
        """Have the licence of that id end at another time; None: never.

        Raises:
            NodeConflictError: it was revoked.
        """
        path = f"/v1/licences/{quote(licence, safe='')}/renew"
        return self._send(LicenceState, "POST", path, LicenceTerm(expires=expires))

    def revoke_licence(self, licence: str) -> Mainframe:
        """Have OMEGA honour the licence of that id no more, for good."""
        found = self.transport.json("POST", f"/v1/licences/{quote(licence, safe='')}/revoke")
        return self.transport.read(Mainframe, found)

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

    def _list(self, kind: type[_Message], path: str, name: str) -> list[_Message]:
        found = self.transport.json("GET", path, limit=LIST_LIMIT).get(name)
        return [self.transport.read(kind, item) for item in found] if isinstance(found, list) else []

    def _send(self, kind: type[_Message], method: str, path: str, message: BaseModel) -> _Message:
        body = message.model_dump(mode="json", by_alias=True)
        return self.transport.read(kind, self.transport.json(method, path, json=body))


def _rollout(rollout: str) -> str:
    return f"/v1/rollouts/{quote(rollout, safe='')}"


def _operation_path(operation_id: str) -> str:
    return f"/v1/operations/{quote(operation_id, safe='')}"
