"""Release archives: the offered bundle as one ZIP file, for installs that speak only the old protocol.

The same bundle gives the same bytes, as long as the same zlib packs them: entries are sorted by path and carry no time
(1980-01-01, the first that ZIP knows). A link to a file is an entry with that file's bytes, since old installs may run
where there are no links; one to a directory is an entry as Info-ZIP writes links.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.common.canonical_json import is_digest
from ashat.errors import StoreFullError
from ashat.node.store.store import Store, disk_errors

_FIRST_TIME = (1980, 1, 1, 0, 0, 0)
_LEVEL = 6
_UNIX = 3
_KEPT = 2
_RESERVE_BYTES = 16 * 1024 * 1024
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class ReleaseZip:
    """An archive on the disk: its size in bytes, and its sha256 in hexadecimal."""

    path: Path
    size: int
    sha256: str


class ReleaseZips:
    """The archives of the newest bundles that were asked for, in `directory`. Each is packed once, in a thread."""

    def __init__(self, directory: Path, store: Store) -> None:
        self._directory = directory
        self.store = store
        self._packing = asyncio.Lock()

    async def of(self, bundle: str) -> ReleaseZip:
        """Find the archive of a bundle that the store has, or pack it.

        Raises:
            StoreFullError: there is no room for it; NotStoredError, IntegrityError: as `Store.manifest`.
        """
        async with self._packing:
            return await run_in_threadpool(lambda: self._find(bundle) or self._pack(bundle))

    def _find(self, bundle: str) -> ReleaseZip | None:
        for path in self._archives():
            if path.name.startswith(f"{bundle}-"):
                return ReleaseZip(path, path.stat().st_size, path.stem.partition("-")[2])
        return None

    def _pack(self, bundle: str) -> ReleaseZip:
        manifest = self.store.manifest(bundle)
        with disk_errors(self.store.root):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._require_room(manifest)
            draft = self._directory / "draft"
            try:
                self._write(manifest, draft)
                with draft.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                path = self._directory / f"{bundle}-{digest}.zip"
                os.replace(draft, path)
            finally:
                with suppress(FileNotFoundError):
                    draft.unlink()
            for old in self._archives()[_KEPT:]:
                old.unlink()
        return ReleaseZip(path, path.stat().st_size, digest)

    def _require_room(self, manifest: Manifest) -> None:
        disk = os.statvfs(self._directory)
        free, needed = disk.f_bavail * disk.f_frsize, manifest.size + _RESERVE_BYTES
        if free < needed:
            raise StoreFullError(
                f"The disk of {self._directory} has {free / 1e6:.1f} MB free, and {needed / 1e6:.1f} MB are needed for "
                "the archive of the release; make room and try again."
            )

    def _write(self, manifest: Manifest, to: Path) -> None:
        entries: dict[str, FileEntry | str] = {**manifest.by_path}
        entries |= dict.fromkeys((f"{path}/" for path in manifest.directories), "")
        for path, target in manifest.targets.items():
            entries[path] = manifest.file_at(path) or target
        with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
            for path, entry in sorted(entries.items()):
                self._add(archive, path, entry)

    def _add(self, archive: zipfile.ZipFile, path: str, entry: FileEntry | str) -> None:
        info = zipfile.ZipInfo(path, _FIRST_TIME)
        info.create_system = _UNIX
        if isinstance(entry, FileEntry):
            info.external_attr = (stat.S_IFREG | entry.mode) << 16
            info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, entry.size
            with archive.open(info, "w") as file:
                for digest, _ in entry.objects():
                    file.write(self.store.read(digest))
        elif path.endswith("/"):
            info.external_attr = (stat.S_IFDIR | 0o755) << 16
            archive.writestr(info, b"")
        else:
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, entry.encode())

    def _archives(self) -> list[Path]:
        """The archives that are whole, the newest first."""
        if not self._directory.is_dir():
            return []
        found = [path for path in self._directory.iterdir() if is_digest(path.name.partition("-")[0])]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
