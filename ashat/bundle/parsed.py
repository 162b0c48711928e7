"""Manifests that were read of late, so that the same bytes are not read a second time.

A digest names the bytes, and the bytes the manifest: what is remembered under a digest cannot be out of date. The bytes
themselves are always taken from where they lie, and hashed, by whoever asks here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from ashat.bundle.manifest import Manifest

BYTES_LIMIT: Final = 16 * 1024 * 1024


class ParsedManifests:
    """The manifests parsed last, of `limit` bytes together as they are spelled. Any thread may ask."""

    def __init__(self, limit: int = BYTES_LIMIT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Manifest, int]] = OrderedDict()

    def parse(self, raw: bytes, digest: str) -> Manifest:
        """Read the manifest that `raw` spells, whose sha256 the caller has found to be `digest`; names that Windows
        cannot hold are no fault.

        Raises:
            ManifestError: it is no canonical manifest, or breaks a bundle rule.
        """
        with self._lock:
            if known := self._known.get(digest):
                self._known.move_to_end(digest)
                return known[0]
        manifest = Manifest.parse(raw, windows_names=False)
        with self._lock:
            self._known[digest] = manifest, len(raw)
            while self._known and sum(size for _, size in self._known.values()) > self._limit:
                self._known.popitem(last=False)
        return manifest
