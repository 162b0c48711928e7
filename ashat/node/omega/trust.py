"""Whose signatures this OMEGA demands, and what they signed: a TUF repository, and OMEGA's own keys to keep it current.

trust/target               the name under which releases are approved for this OMEGA; the first root fixes it
trust/keys/*.pem           snapshot and timestamp, made at the first look; their private halves never leave
trust/repository/          what Mainframes are served (`ashat.trust.repository`)
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from ashat.durable import make_directory, replace_file
from ashat.errors import TrustError, UnprovenError
from ashat.faults import fault_point
from ashat.node.api_errors import ApiError
from ashat.trust.documents import ReleaseDocument
from ashat.trust.keys import create_key, load_signer, public_hex
from ashat.trust.metadata import PRODUCTION
from ashat.trust.provenance import demand_provenance
from ashat.trust.repository import OnlineKeys, Repository
from ashat.wire import OperationRequest, SignedRelease, TrustMetadata, TrustState

RENEW_INTERVAL: Final = 60.0
_SERVED = re.compile(
    r"timestamp\.json|[1-9][0-9]{0,9}\.(root|targets|production|snapshot)\.json"
    r"|targets/production/[a-z0-9-]{1,63}/[0-9a-f]{64}\.release\.json"
    r"|targets/provenance/[0-9a-f]{64}\.json"
)


class OmegaTrust:
    """The trust of one OMEGA, below `directory`.

    With `unsigned_releases` it also promotes what nobody signed, for as long as it keeps no root; with one, never.
    """

    def __init__(self, directory: Path, *, unsigned_releases: bool = False) -> None:
        self._directory = directory
        self._files = directory / "repository"
        self._unsigned = unsigned_releases
        self._own: tuple[CryptoSigner, CryptoSigner] | None = None
        self._published: tuple[int, str] | None = None

    @property
    def repository(self) -> Repository:
        """The repository, which may not have begun yet."""
        return Repository(self._files, target=self.target)

    @property
    def target(self) -> str:
        """The name under which releases are approved for this OMEGA; "" before the first root.

        Raises:
            TrustError: it cannot be read.
        """
        try:
            return (self._directory / "target").read_text("utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise TrustError(f"{self._directory / 'target'} cannot be read: {error}.") from None

    @property
    def online(self) -> OnlineKeys:
        """OMEGA's own keys, made the first time.

        Raises:
            KeyFileError: they cannot be read or written.
        """
        return OnlineKeys(*self._own_keys())

    def public_keys(self) -> dict[str, str]:
        """Their public halves by role, in hexadecimal.

        Raises:
            KeyFileError: see `online`.
        """
        snapshot, timestamp = self._own_keys()
        return {Snapshot.type: public_hex(snapshot), Timestamp.type: public_hex(timestamp)}

    def begun(self) -> bool:
        """Whether it keeps a root, and so demands signatures."""
        return Repository(self._files).exists()

    def state(self) -> TrustState:
        """What it keeps, for who signs the next.

        Raises:
            TrustError: it cannot be read.
        """
        online = self.public_keys()
        if not self.begun():
            return TrustState(online=online)
        repository = self.repository
        held = repository.read()
        assert held.timestamp is not None
        released = held.production.signed.targets if held.production else {}
        channels = [path.split("/")[1] for path in released]
        text = {role: raw.decode() for role, raw in held.raw.items()}
        return TrustState(
            target=repository.target,
            online=online,
            root=text[Root.type],
            targets=text[Targets.type],
            production=text.get(PRODUCTION),
            documents={name: repository.release(name, held).to_bytes().decode() for name in channels},
            expires=held.timestamp.signed.expires,
        )

    def kept(self) -> dict[str, dict[str, Any]]:
        """What was signed offline and is kept, by role: its version and sha256; and for which name.

        Raises:
            TrustError: it cannot be read.
        """
        if not self.begun():
            return {}
        raw = {role: text for role, text in self.repository.read().raw.items() if role in (Root.type, Targets.type)}
        return {
            role: {
                "target": self.target,
                "version": json.loads(text)["signed"]["version"],
                "sha256": hashlib.sha256(text).hexdigest(),
            }
            for role, text in raw.items()
        }

    def install(self, given: TrustMetadata) -> None:
        """Keep a first root and targets, or later versions of what is signed offline; the same again changes nothing.

        Raises:
            TrustError: it does not follow from what is kept, or is for an OMEGA of another name.
        """
        parts: dict[str, Any] = {
            role: text.encode()
            for role, text in (("root", given.root), ("targets", given.targets), (PRODUCTION, given.production))
            if text is not None
        }
        if self.begun():
            if given.target != self.target:
                raise TrustError(f"This OMEGA is {self.target}, and not {given.target}: nothing was changed.")
            held = self.repository.read().raw
            if all(held.get(role) == raw for role, raw in parts.items()):
                return
        else:
            make_directory(self._directory, mode=0o700)
            replace_file(self._directory / "target", given.target.encode())
        self.repository.install(self.online, **parts)

    def judge(self, request: OperationRequest) -> ReleaseDocument | None:
        """The signed document that permits `request`; None where none is demanded.

        Raises:
            ApiError: 409 `trust_missing`, `unsigned`, `unproven` without the provenance that is demanded, or
                `untrusted` with what is wrong with what was signed.
        """
        if not self.begun():
            if self._unsigned:
                return None
            raise ApiError(
                409,
                "trust_missing",
                "OMEGA keeps no trust root, so it cannot know whose approval counts. Run deploy verify again, which "
                "sets up the one-person mode; or set unsigned_releases, to do without signatures.",
            )
        if request.signed is None:
            raise ApiError(409, "unsigned", f"Nobody signed this {request.action}, and OMEGA demands that.")
        document = self.read_signed(request.signed)
        asked = (request.bundle, request.update_id, request.attempt)
        if (document.bundle, document.update_id, document.attempt) != asked:
            raise ApiError(409, "untrusted", f"What was signed is {document.update_id}/{document.attempt}, not this.")
        return document

    def read_signed(self, signed: SignedRelease) -> ReleaseDocument:
        """The release document that enough approvers signed, to follow on what was published last.

        Raises:
            ApiError: 409 `unproven`, `untrusted` with what is wrong with it.
        """
        try:
            document = ReleaseDocument.from_bytes(signed.document.encode())
            self._check(signed, document)
        except UnprovenError as error:
            raise ApiError(409, "unproven", f"OMEGA refuses what was signed: {error}") from None
        except TrustError as error:
            raise ApiError(409, "untrusted", f"OMEGA refuses what was signed: {error}") from None
        return document

    def publish(self, signed: SignedRelease) -> ReleaseDocument:
        """Let Mainframes have what was signed, and return it; again changes nothing.

        Raises:
            TrustError: it no longer counts.
        """
        raw = signed.document.encode()
        document = ReleaseDocument.from_bytes(raw)
        if self._published != (document.release_seq, document.bundle):
            if signed.provenance is not None and document.provenance is not None:
                self._keep(document.provenance, signed.provenance.encode())
                fault_point("trust.proven")
            self.repository.publish(signed.production.encode(), raw, self.online)
            self._published = document.release_seq, document.bundle
        return document

    def renew(self, now: datetime | None = None) -> None:
        """Say again that the files served are the current ones, once half of the time is over that this holds.

        Raises:
            TrustError: it cannot be written.
        """
        repository, at = self.repository, now or datetime.now(UTC)
        if not repository.exists():
            return
        timestamp = repository.read().timestamp
        assert timestamp is not None
        if timestamp.signed.expires - at < timedelta(seconds=repository.lifetimes.timestamp / 2):
            repository.renew(self.online, now=at)

    def file(self, name: str) -> bytes:
        """A file of the repository, by its name there.

        Raises:
            ApiError: 404.
        """
        if _SERVED.fullmatch(name):
            try:
                return (self._files / name).read_bytes()
            except FileNotFoundError:
                pass  # answered below, as any other name that is not there
        raise ApiError(404, "not_found", f"There is no {name[:80]!r} in OMEGA's repository.")

    def _own_keys(self) -> tuple[CryptoSigner, CryptoSigner]:
        if self._own is None:
            keys = self._directory / "keys"
            make_directory(keys, mode=0o700)
            self._own = _own_key(keys, Snapshot.type), _own_key(keys, Timestamp.type)
        return self._own

    def _keep(self, digest: str, provenance: bytes) -> None:
        path = self._files / "targets" / "provenance" / f"{digest}.json"
        try:
            make_directory(path.parent)
            replace_file(path, provenance)
        except OSError as error:
            raise TrustError(f"{path} cannot be written: {error.strerror}; what was published stands.") from error

    def _check(self, signed: SignedRelease, document: ReleaseDocument) -> None:
        repository = self.repository
        now = datetime.now(UTC)
        held = repository.read()
        provenance = signed.provenance.encode() if signed.provenance is not None else None
        repository.plan_publish(held, signed.production.encode(), document, self.online, now)
        # After the signatures: without those, whatever comes is a stranger's.
        demand_provenance(held.targets.signed, document, provenance)


def _own_key(directory: Path, role: str) -> CryptoSigner:
    path = directory / f"{role}.pem"
    if not path.exists():
        create_key(path, role, None)
    return load_signer(path)
