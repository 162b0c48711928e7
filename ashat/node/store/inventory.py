"""Find what a store lacks of the bundles that a node needs, and bring it back from their release directories.

A backup leaves `store/` out, and a disk may lose it. A file of a release directory is only believed once its bytes
match the digest that they are kept under.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Literal

from ashat.bundle.manifest import Manifest
from ashat.bundle.pack import Packed, pack_directory
from ashat.errors import AshatError, IntegrityError, NotStoredError
from ashat.node.store.releases import Releases
from ashat.node.store.room import Room
from ashat.node.store.store import Store
from ashat.protocol.messages import LostBundle, RestoredBundle, RoomRequest, StoreState

log = logging.getLogger("ashat.node")

_Needed = Iterable[tuple[str, Literal["runs", "ran before"]]]


class Inventory:
    """What `store` lacks of what `needed` names (bundles, each with why it is needed); one thread at a time looks."""

    def __init__(self, store: Store, releases: Releases, room: Room, needed: Callable[[], _Needed]) -> None:
        self._store = store
        self._releases = releases
        self._room = room
        self._needed = needed
        self.lost: tuple[LostBundle, ...] = ()
        self._restored: RestoredBundle | None = None

    def look(self, *, restore: bool = True) -> None:
        """Look at what is needed, `restore` what a release directory holds, and keep what stays lost.

        Raises:
            OSError: the disk cannot be read.
        """
        lost = []
        for bundle, why in self._needed():
            lacking = self._lacking(bundle)
            if lacking != 0 and restore:
                self._restore(bundle)
                lacking = self._lacking(bundle)
            if lacking != 0:
                lost.append(LostBundle(bundle=bundle, why=why, objects=lacking))
        if lost and tuple(lost) != self.lost:
            for one in lost:
                log.warning("the store lost %s, which %s, and no release directory holds it whole", one.bundle, one.why)
        self.lost = tuple(lost)

    def state(self) -> StoreState:
        """Measure the store, and say what it lost, and what was restored last."""
        return self._store.state().model_copy(update={"lost": self.lost, "restored": self._restored})

    def _lacking(self, bundle: str) -> int | None:
        """How many of its objects are not here; None where its manifest is not, either."""
        manifest = self._known(bundle)
        return None if manifest is None else len(self._store.lacking(manifest))

    def _restore(self, bundle: str) -> None:
        for directory in self._releases.directories(bundle):
            try:
                with pack_directory(directory, windows_names=False) as packed:
                    found = self._take(bundle, packed)
            except (AshatError, OSError) as error:
                log.warning("%s does not restore the store: %s", directory, error)
                continue
            if found is not None:
                self._restored = RestoredBundle(bundle=bundle, objects=found, at=datetime.now(UTC))
                log.warning("the store had lost %d objects of %s: restored from %s", found, bundle, directory)
                return

    def _take(self, bundle: str, packed: Packed) -> int | None:
        """Take what the store lacks of the bundle; how many objects, None where some stay missing."""
        candidates = (self._known(bundle), packed.manifest, packed.manifest.without_directories())
        manifest = next((each for each in candidates if each is not None and each.digest == bundle), None)
        if manifest is None:
            return None
        lacking = [digest for digest in self._store.missing(manifest.objects) if digest in packed.manifest.objects]
        size = sum(manifest.objects[digest] for digest in lacking)
        self._room.require(RoomRequest(bundle=bundle, objects=len(lacking), bytes=size, files=0, directories=0, size=0))
        buffer = self._store.buffers.take()
        try:
            for digest in lacking:
                content = packed.read_object(digest)
                buffer[: len(content)] = content
                self._store.add(digest, buffer, len(content))
        finally:
            self._store.buffers.give_back(buffer)
        if self._store.missing(manifest.objects):
            return None
        self._store.put_manifest(manifest.canonical, bundle)
        return len(lacking)

    def _known(self, bundle: str) -> Manifest | None:
        try:
            return self._store.manifest(bundle)
        except (NotStoredError, IntegrityError):
            return None
