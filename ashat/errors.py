"""Every error that ASHAT Deploy raises on purpose.

AshatError
 x UsageError                the words of a command or a setting are wrong
 x DocumentError             a text is no JSON or TOML, or exceeds what is read of one
 x BundleError               the source tree cannot become a bundle
   + SourceChangedError      a file changed while it was packed
 x ManifestError             a manifest breaks the bundle rules
 x SessionError              the deployment's state does not allow it
   + UnknownUpdateError
   + UpdateExistsError
   + ConflictError           somebody else acted first
 x LedgerError               the ledger cannot be read or written
   + LedgerTooNewError
 x AuditError                the record is not what was written or signed
   + CheckpointError         a checkpoint, or the key that it is held against, is none
 x EvidenceError             a document is no evidence that this version can read
 x NodeError                 a server said no, or nothing
   + NodeUnreachableError    no connection, a timeout, a cut       (may pass by itself)
     - NodeUntrustedError    its TLS certificate is not trusted
   + NodeBusyError           429, 502, 503, 504                    (may pass by itself)
   + NodeFaultError          500, disk full
   + NodeAuthError           401, 403
   + NodeRefusedError        400, 404, 422, 423: the request itself is refused
     - BodyTooLargeError     413 of a proxy in front of the server
   + NodeConflictError       409: the server runs something else
   + WrongRoleError          the address answers, as another kind of server
 x IntegrityError            bytes that do not match their digest
 x FrameError                a stream of objects breaks the frame format
   + FrameTooLargeError
 x StoreError                a content store cannot do what was asked
   + NotStoredError          it does not hold that object or bundle
   + ObjectsMissingError     a manifest names objects that it does not hold
   + StoreFullError          its disk is full
 x SwitchFailedError         a server could not run the release and put back what it ran
 x NotConfiguredError        a server or a source that is needed was never configured
 x LicenceError              a licence is missing, unknown, expired or revoked
 x TrustError                what was signed does not let a release in
   + KeyFileError            a key file or its passphrase cannot be used
   + KeyPolicyError          keys or a threshold that would protect less than they say
   + UnsignedError           too few of those who must sign have signed
   + UnprovenError           nobody who may build or verify signed where a release comes from
   + SignatureExpiredError   what was signed has an end, and it has passed
   + RolledBackError         older than what was accepted before
   + MixAndMatchError        files that were not published together, or were changed since
   + OversizedError          more bytes than such a file may have
   + MalformedMetadataError  no TUF metadata, or no release document
   + NoReleaseError          nothing was released on that channel yet
   + LogError                the log that a release stands in is not the one that was seen before
 x ReceiptError              a file is no receipt, or something in it does not fit
 x ControlPlaneError         Prefect's server or its workers
 x TrackerError              a tracker of tasks said no, or nothing
   + TrackerBusyError        it asks to wait                      (may pass by itself)
   + TaskRefusedError        it does not do it for this task
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus


class AshatError(Exception):
    """The root of them all. `str(error)` is one line: what is wrong and what to do next."""

    exit_code = 1

    def lines(self) -> list[str]:
        """Return what a person is told, with the notes that were added to the error: one line."""
        return [" ".join([str(self), *getattr(self, "__notes__", ())])]


class UsageError(AshatError):
    """The words of a command, a parameter or a setting are wrong."""

    exit_code = 2


class DocumentError(AshatError, ValueError):
    """A text is no JSON or TOML, or exceeds what is read of one; whoever reads it says which text."""


class BundleError(AshatError):
    """The source tree cannot become a bundle. With `by_kind`, `text` has a line for each kind of what is wrong, in
    which every name is escaped."""

    def __init__(self, text: str, *, by_kind: bool = False) -> None:
        super().__init__(text)
        self.by_kind = by_kind

    def lines(self) -> list[str]:
        """Return what a person is told: one line, or one for each kind."""
        return [line for told in super().lines() for line in (told.splitlines() if self.by_kind else [told])]


class SourceChangedError(BundleError):
    """A file changed while it was being packed."""


class ManifestError(AshatError):
    """A manifest breaks the bundle rules or is not canonical."""


class SessionError(AshatError):
    """The state that the deployment is in does not allow what was asked."""


class UnknownUpdateError(SessionError):
    """No deployment has that id."""


class UpdateExistsError(SessionError):
    """The id is in use."""


class ConflictError(SessionError):
    """Somebody else acted first: the ledger moved on since it was read."""


class SwitchFailedError(AshatError):
    """A server could not run the release, and put back what it ran before; `output` is what the program wrote last."""

    def __init__(self, message: str, output: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.output = tuple(output)


class NotConfiguredError(AshatError):
    """A server or a source that is needed was never configured."""


class PolicyError(AshatError):
    """A policy asks for what there is not."""


class LedgerError(AshatError):
    """The ledger cannot be read or written."""


class LedgerTooNewError(LedgerError):
    """A newer version of ASHAT Deploy wrote the ledger."""


class BackupError(AshatError):
    """A backup could not be made or read; nothing that was there before was changed."""


class AuditError(AshatError):
    """The record, or an export of it, is not what was written or what was signed.

    `event` counts from 1 in the order of the log, None where no one event can be named; the others say whose it is,
    as far as that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        event: int | None = None,
        update_id: str = "",
        attempt: int | None = None,
        version: int | None = None,
    ) -> None:
        super().__init__(message)
        self.event = event
        self.update_id = update_id
        self.attempt = attempt
        self.version = version


class CheckpointError(AuditError):
    """A text is no checkpoint, no verifier key, or nobody trusted signed it."""


class EvidenceError(AshatError):
    """A document is no evidence, or of a format that this version does not know."""


class NodeError(AshatError):
    """A server said no, or nothing.

    `status` is the HTTP status, None where there was no answer; `retry_after` is in seconds,
    a day at most, and only set where the server sent `Retry-After`; `server` names the server asked; `body` is
    the server's decoded JSON error body where it sent one.
    """

    transient = False

    def __init__(
        self,
        message: str,
        *,
        server: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        body: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.server = server
        self.status = status
        self.retry_after = retry_after
        self.body = body or {}


class NodeUnreachableError(NodeError):
    """No connection, a timeout, or a connection cut in the middle."""

    transient = True


class NodeUntrustedError(NodeUnreachableError):
    """The server's TLS certificate is not trusted here; that does not pass by itself."""

    transient = False


class NodeBusyError(NodeError):
    """The server asks to come back later: 429, 502, 503, 504."""

    transient = True


class NodeFaultError(NodeError):
    """The server failed: 500, or its disk is full (507), where nobody makes room by asking again."""

    @property
    def transient(self) -> bool:  # type: ignore[override]
        """Say whether it may pass by itself."""
        return self.status != HTTPStatus.INSUFFICIENT_STORAGE


class NodeAuthError(NodeError):
    """The token is missing, unknown, or lacks the scope: 401, 403."""


class NodeRefusedError(NodeError):
    """The request itself is refused: 400, 404, 413, 422, 423."""


class BodyTooLargeError(NodeRefusedError):
    """Whatever stands before the server takes no request of that size: 413 in other words than a node's."""


class NodeConflictError(NodeError):
    """The server runs something else than was expected: 409."""


class WrongRoleError(NodeError):
    """The address answers, but as another kind of server."""


class IntegrityError(AshatError):
    """Bytes do not match the digest that names them; `digest` is that digest where it is known."""

    def __init__(self, message: str, *, digest: str = "") -> None:
        super().__init__(message)
        self.digest = digest


class FrameError(AshatError):
    """A stream of objects breaks the frame format."""


class FrameTooLargeError(FrameError):
    """A frame is larger than an object may be."""


class CarriedFileError(AshatError):
    """A file that was carried by hand cannot be taken: it is none of ours, was cut or altered, or is for another."""


class StoreError(AshatError):
    """A content store cannot do what was asked."""


class NotStoredError(StoreError):
    """The store does not hold that object or bundle."""


class ObjectsMissingError(StoreError):
    """A manifest names objects that the store does not hold; `missing` are their digests."""

    def __init__(self, message: str, *, missing: list[str]) -> None:
        super().__init__(message)
        self.missing = missing


class StoreFullError(StoreError):
    """The store's disk is full."""


class FleetDatabaseError(AshatError):
    """OMEGA's database of its fleet does not answer, or takes nothing."""


class LicenceError(AshatError):
    """A licence is missing, unknown, expired or revoked."""


class TrustError(AshatError):
    """What was signed does not let a release in."""


class KeyFileError(TrustError):
    """A key file, or the passphrase for it, cannot be used."""


class KeyPolicyError(TrustError):
    """Keys or a threshold that would protect less than they say."""


class UnsignedError(TrustError):
    """Too few of those who must sign have signed, or somebody else did."""


class UnprovenError(TrustError):
    """A release comes without the provenance that is demanded, or nobody who may build or verify signed it."""


class SignatureExpiredError(TrustError):
    """What was signed has an end, and it has passed: nobody renewed it, or somebody withholds what is newer."""


class ClockError(TrustError):
    """The clock here is behind the time at which something was signed, so it cannot tell what has ended."""


class RolledBackError(TrustError):
    """Older than what was accepted before."""


class MixAndMatchError(TrustError):
    """Files that were not published together, or were changed since they were."""


class OversizedError(TrustError):
    """More bytes came than such a file may have."""


class MalformedMetadataError(TrustError):
    """A file is no TUF metadata, or no release document, that this version can read."""


class NoReleaseError(TrustError):
    """Nothing was released on that channel yet."""


class LogError(TrustError):
    """The log of what was done was rewritten, cut off or forked since it was last seen, or nobody shows otherwise."""


class ReceiptError(AshatError):
    """A file is no receipt, or something in it does not fit."""


class ControlPlaneError(AshatError):
    """Prefect's server, its workers or its deployments are not there or not as expected."""


class TrackerError(AshatError):
    """A tracker of tasks does not answer, or not as one does."""


class TrackerBusyError(TrackerError):
    """A tracker asks to be left alone for so many `seconds`."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class TaskRefusedError(TrackerError):
    """A tracker does not do it for one task, such as one that is not there; `status` is as HTTP says."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class SelfTestError(AshatError):
    """A check missed a fault that was seeded for it."""
