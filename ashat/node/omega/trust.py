"""Whose signatures this OMEGA demands, and what they signed: a TUF repository, and OMEGA's own keys to keep it current.

trust/target               the name under which releases are approved for this OMEGA; the first root fixes it
trust/keys/*.pem           snapshot and timestamp, made at the first look; their private halves never leave
trust/repository/          what Mainframes are served (`ashat.trust.release.repository`)
trust/given.json           a change of these that is being made; whatever starts next ends it
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from tuf.api.metadata import Metadata, Root, Targets

from ashat.common.clocks import SKEW_LIMIT
from ashat.common.failpoints import fault_point
from ashat.common.files import make_directory, replace_file, sync_directory
from ashat.common.remembered_files import RememberedFiles
from ashat.errors import MixAndMatchError, NoReleaseError, TrustError, UnprovenError
from ashat.node.core.errors import ApiError
from ashat.node.omega.online_keys import OnlineKeyFiles, public_keys
from ashat.protocol.messages import OperationRequest, SignedRelease, TrustMetadata, TrustState
from ashat.trust.release.provenance import verify_provenance
from ashat.trust.release.repository import OnlineKeys, Repository, State
from ashat.trust.tuf.metadata import PRODUCTION, parse
from ashat.trust.tuf.release_document import ReleaseDocument
from ashat.trust.tuf.root_chain import PinnedRoot

RENEW_INTERVAL: Final = 60.0
log = logging.getLogger("ashat.node.omega")
_GIVEN: Final = "given.json"
_SERVED = re.compile(
    r"timestamp\.json|[1-9][0-9]{0,9}\.(root|targets|production|snapshot)\.json"
    r"|targets/production/[a-z0-9-]{1,63}/[0-9a-f]{64}\.release\.json"
    r"|targets/provenance/[0-9a-f]{64}\.json"
)


class OmegaTrust:
    """The trust of one OMEGA, below `directory`.

    With `unsigned_releases` it also promotes what nobody signed, for as long as it keeps no root; with one, or one that
    is `pinned`, never. It begins with no other root than that.
    """

    def __init__(self, directory: Path, *, unsigned_releases: bool = False, pinned: PinnedRoot | None = None) -> None:
        self._directory = directory
        self._files = directory / "repository"
        self._unsigned = unsigned_releases and pinned is None
        self._pinned = pinned
        self._keys = OnlineKeyFiles(directory / "keys")
        self._changing = threading.Lock()
        self._published: tuple[int, str] | None = None
        self._remembered = RememberedFiles()

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

    def public_keys(self, *, new: bool = False) -> dict[str, str]:
        """Return the public halves of OMEGA's newest keys by role, in hexadecimal; the first time, and where `new`, a
        pair is made first. A new pair signs nothing before a root names it.

        Raises:
            KeyFileError: they cannot be read or written.
        """
        return public_keys(self._keys.make() if new else self._keys.newest())

    def begun(self) -> bool:
        """Tell whether OMEGA keeps a root, and so demands signatures.

        Raises:
            TrustError: it kept one, or had begun to, and what is left is not whole: that is not to have none.
        """
        if self._whole():
            return True
        with self._changing:
            return self._begun()

    def _begun(self) -> bool:
        if self._whole():
            return True
        begun = any((self._directory / name).exists() for name in ("target", _GIVEN))
        if begun or any(_SERVED.fullmatch(path.name) for path in self._files.glob("*.json")):
            raise NoReleaseError(
                f"{self._directory} is not whole: its repository has no timestamp.json. Restore it from a backup; or "
                "stop the node, put it aside, start it again, and then: deploy trust rotate --online."
            )
        return False

    def demands(self) -> bool:
        """Tell, for an answer to a request, whether OMEGA demands signatures.

        Raises:
            ApiError: 409 `untrusted` as that raises.
        """
        try:
            return self.begun()
        except TrustError as error:
            raise ApiError(409, "untrusted", f"OMEGA cannot know whose approval counts: {error}") from None

    def _whole(self) -> bool:
        return Repository(self._files).exists()

    def state(self) -> TrustState:
        """Return the metadata and documents that OMEGA keeps, for whoever signs the next.

        Raises:
            TrustError: it cannot be read.
        """
        online, pinned = self.public_keys(), self._pinned.digest if self._pinned else None
        if not self.begun():
            return TrustState(online=online, pinned=pinned)
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
            pinned=pinned,
        )

    def kept(self) -> dict[str, dict[str, Any]]:
        """Return what was signed offline and is kept, by role: its version and sha256; and for which name.

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
            TrustError: it does not follow from what is kept or pinned, or is for an OMEGA of another name.
        """
        with self._changing:
            self._end_change()
            held = self.repository.read() if self._begun() else None
            if held is not None and given.target != self.target:
                raise TrustError(f"This OMEGA is {self.target}, and not {given.target}: nothing was changed.")
            parts = _parts(given)
            if held is not None and all(held.raw.get(role) == raw for role, raw in parts.items()):
                return
            self._check_first(given, held)
            online = self._keys.named_by(_root_of(given, held))
            plan = Repository(self._files, target=given.target).plan_install
            plan(held, online, **_all_roles(parts), now=datetime.now(UTC))
            self._keep_intent(given)
            fault_point("trust.intended")
            self._change(given)

    def _keep_intent(self, given: TrustMetadata) -> None:
        try:
            make_directory(self._directory, mode=0o700)
            replace_file(self._directory / _GIVEN, given.model_dump_json().encode(), mode=0o600)
        except OSError as error:
            raise TrustError(f"{self._directory} cannot be written: {error.strerror}; nothing was changed.") from error

    def _change(self, given: TrustMetadata) -> None:
        """Carry the change out, from wherever a crash left it."""
        parts = _all_roles(_parts(given))
        held = self.repository.read() if self._whole() else None
        earlier = self._check_first(given, held)
        try:
            if held is None:
                replace_file(self._directory / "target", given.target.encode())
                make_directory(self._files)
                for root in earlier:
                    # By these a Mainframe follows whose root is as old as the one that is pinned.
                    replace_file(self._files / f"{root.signed.version}.root.json", root.to_bytes())
            self.repository.install(
                self._keys.named_by(_root_of(given, held)),
                root=parts[Root.type],
                targets=parts[Targets.type],
                production=parts[PRODUCTION],
            )
            fault_point("trust.installed")
            self._keys.remove_before(self.repository.read().root.signed)
            (self._directory / _GIVEN).unlink()
            sync_directory(self._directory)
        except OSError as error:
            raise TrustError(f"{self._directory} cannot be written: {error.strerror}; try again.") from error

    def _check_first(self, given: TrustMetadata, held: State | None) -> list[Metadata[Root]]:
        """Check that a first root is the one that is pinned, or follows from it; return the roots that lead there."""
        if self._pinned is None or held is not None or given.root is None:
            return []
        between = [parse(text.encode(), Root, "A root before the one given") for text in given.roots]
        try:
            return self._pinned.check(parse(given.root.encode(), Root, "The root"), between)
        except TrustError as error:
            raise MixAndMatchError(f"OMEGA takes no first root but its trust_root: {error}") from None

    def _check_pinned(self, held: State) -> None:
        """Check that the root that is kept is the one that is pinned by now, or follows from it."""
        if self._pinned is None:
            return
        names = [f"{version}.root.json" for version in range(self._pinned.version + 1, held.root.signed.version)]
        try:
            between = [parse((self._files / name).read_bytes(), Root, name) for name in names]
            self._pinned.check(held.root, between)
        except (TrustError, OSError) as error:
            raise MixAndMatchError(
                f"The root that OMEGA keeps does not follow from its trust_root: {error} If people agreed on the one "
                "that is kept, put their newest root.json in the place of trust_root, and start the node again."
            ) from None

    def _end_change(self) -> None:
        """End what a crash cut short. What can no longer be ended is kept, and said, until another change comes."""
        try:
            given = TrustMetadata.model_validate_json((self._directory / _GIVEN).read_bytes())
            self._change(given)
        except FileNotFoundError:
            return
        except (TrustError, ValidationError, OSError) as error:
            log.warning("the change of trust that was begun cannot be ended: %s", error)

    def judge(self, request: OperationRequest) -> ReleaseDocument | None:
        """Find the signed document that permits `request`; None where none is demanded.

        Raises:
            ApiError: 409 `trust_missing`, `unsigned`, `unproven` without the provenance that is demanded, or
                `untrusted` with what is wrong with what was signed, or with what is kept here.
        """
        if not self.demands():
            if self._unsigned:
                return None
            way = (
                "Hand over the one that its trust_root is: deploy trust publish, where that was made."
                if self._pinned
                else "Run deploy verify again, which sets up the one-person mode; or set unsigned_releases, to do "
                "without signatures."
            )
            raise ApiError(
                409, "trust_missing", f"OMEGA keeps no trust root, so it cannot know whose approval counts. {way}"
            )
        if request.signed is None:
            raise ApiError(409, "unsigned", f"Nobody signed this {request.action}, and OMEGA demands that.")
        document = self.read_signed(request.signed)
        try:
            document.require(bundle=request.bundle, update_id=request.update_id, attempt=request.attempt)
        except MixAndMatchError as error:
            raise ApiError(409, "untrusted", str(error)) from None
        return document

    def read_signed(self, signed: SignedRelease) -> ReleaseDocument:
        """Read the release document, and see that enough approvers signed it to follow on what was published last.

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
        """Publish to Mainframes what was signed, and return the document; again changes nothing.

        Raises:
            TrustError: it no longer counts.
        """
        raw = signed.document.encode()
        document = ReleaseDocument.from_bytes(raw)
        self._check_pinned(self.repository.read())
        if self._published != (document.release_seq, document.bundle):
            if signed.provenance is not None and document.provenance is not None:
                self._keep(document.provenance, signed.provenance.encode())
                fault_point("trust.proven")
            self.repository.publish(signed.production.encode(), raw, self._online)
            self._published = document.release_seq, document.bundle
        return document

    def renew(self, now: datetime | None = None, *, share: float = 0.5) -> None:
        """Say again that the files served are the current ones, once no more than a `share` of the time is left that
        this holds, or where a clock that was ahead said it; end a change first that was cut short.

        Raises:
            TrustError: it cannot be written, or what is kept is not whole.
        """
        with self._changing:
            self._end_change()
        if not self.begun():
            return
        repository, at = self.repository, now or datetime.now(UTC)
        timestamp = repository.read().timestamp
        assert timestamp is not None
        left, lifetime = timestamp.signed.expires - at, timedelta(seconds=repository.lifetimes.timestamp)
        if not lifetime * share <= left <= lifetime + SKEW_LIMIT:
            repository.renew(self._online, now=at)

    def keep_current(self) -> bool:
        """Renew as `renew` does, and tell whether what is kept is whole. What is wrong goes into the log: what runs
        keeps running, and nothing new is let in before it is repaired."""
        whole = False
        try:
            self.renew()
            whole = True
            if self.begun():
                self._check_pinned(self.repository.read())
        except TrustError as error:
            log.warning("OMEGA takes nothing new: %s", error)
        return whole

    def file(self, name: str) -> bytes:
        """Read a file of the repository, by its name there.

        Raises:
            ApiError: 404.
        """
        if _SERVED.fullmatch(name):
            try:
                return self._remembered.read(f"{self._files}/{name}")
            except FileNotFoundError:
                pass  # answered below, as any other name that is not there
        raise ApiError(404, "not_found", f"There is no {name[:80]!r} in OMEGA's repository.")

    @property
    def _online(self) -> OnlineKeys:
        """The keys that the root names."""
        return self._keys.named_by(self.repository.read().root.signed)

    def _keep(self, digest: str, provenance: bytes) -> None:
        path = self._files / "targets" / "provenance" / f"{digest}.json"
        try:
            make_directory(path.parent)
            replace_file(path, provenance)
        except OSError as error:
            raise TrustError(f"{path} cannot be written: {error.strerror}; what was published stands.") from error

    def _check(self, signed: SignedRelease, document: ReleaseDocument) -> None:
        repository = self.repository
        held = repository.read()
        self._check_pinned(held)
        online = self._keys.named_by(held.root.signed)
        repository.plan_publish(held, signed.production.encode(), document, online, datetime.now(UTC))
        # After the signatures: without those, whatever comes is a stranger's.
        verify_provenance(held.targets.signed, document, signed.provenance)


def _parts(given: TrustMetadata) -> dict[str, bytes]:
    texts = {Root.type: given.root, Targets.type: given.targets, PRODUCTION: given.production}
    return {role: text.encode() for role, text in texts.items() if text is not None}


def _all_roles(parts: dict[str, bytes]) -> dict[str, bytes | None]:
    return {role: parts.get(role) for role in (Root.type, Targets.type, PRODUCTION)}


def _root_of(given: TrustMetadata, held: State | None) -> Root:
    """Find the root that will hold: the one given, else the one kept."""
    if given.root is not None:
        return parse(given.root.encode(), Root, "The root").signed
    if held is None:
        raise NoReleaseError("OMEGA keeps no root yet: it begins with a root and targets.")
    return held.root.signed
