"""Write what OMEGA offers into one file that is carried to a Mainframe by hand (`ashat.protocol.carried`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ashat.bundle.manifest import Manifest
from ashat.client.node import NodeClient
from ashat.client.transfer import BATCH_OBJECTS, fetch_objects
from ashat.common.files import sync_directory
from ashat.errors import NodeRefusedError, UsageError
from ashat.protocol.carried import Contents, OmegaWord, carried_frames
from ashat.protocol.fleet import Mainframe

REPORTED = "reported"


@dataclass(frozen=True)
class Exported:
    """What was written: what OMEGA says in it, the bundle whose objects it leaves out, and figures in bytes."""

    word: OmegaWord
    left_out: str | None
    objects: int
    bytes: int
    file_bytes: int


def find_mainframe(omega: NodeClient, name: str) -> Mainframe:
    """Find the one active Mainframe of that name or id.

    Raises:
        UsageError: there is none, there are several, or its licence does not count.
    """
    known = omega.mainframes()
    found = [one for one in known if one.id == name] or [one for one in known if one.name == name]
    if len(found) != 1:
        several = f"Several are called {name[:80]!r}: give the id" if found else f"No Mainframe is {name[:80]!r}"
        raise UsageError(f"{several}; deploy servers --json lists them with their ids.")
    if found[0].status != "active":
        raise UsageError(f"The licence of {found[0].name} is {found[0].status}: nothing is exported for it.")
    return found[0]


def export(
    omega: NodeClient,
    update_id: str,
    attempt: int | None,
    mainframe: Mainframe,
    file: Path,
    *,
    left_out: str | None = None,
) -> Exported:
    """Write the release that OMEGA offers, which must be that one, for `mainframe` into `file`, durably.

    It leaves out the objects of the bundle `left_out`, or, where that is `REPORTED`, of the one that the Mainframe last
    reported to run.

    Raises:
        UsageError: OMEGA offers another release, or nothing is known to leave out, or the file cannot be written.
        IntegrityError: OMEGA sent other bytes than the bundle names.
        NodeError: OMEGA said no, or nothing.
    """
    word = omega.word_for(mainframe.id)
    offer = word.offer
    if offer.update_id != update_id or attempt not in (None, offer.attempt):
        raise UsageError(
            f"OMEGA offers {offer.update_id}/{offer.attempt} now, and Mainframes take nothing else: deploy export "
            f"{offer.update_id}"
        )
    if left_out == REPORTED:
        left_out = word.runs
        if left_out is None:
            raise UsageError(f"{word.name} has not reported that it runs anything: export the whole, without --from.")
    manifest = omega.manifest(offer.bundle)
    held = _objects_of(omega, left_out) if left_out else {}
    wanted = {digest: size for digest, size in manifest.objects.items() if digest not in held}
    content = word.model_dump_json().encode()
    contents = Contents(
        word=len(content),
        manifest=len(manifest.canonical),
        objects=len(wanted),
        bytes=sum(wanted.values()),
        left_out=left_out,
    )
    frames = carried_frames(contents, content, manifest.canonical, _fetch(omega, wanted))
    size = _write(file, frames)
    return Exported(word, left_out, contents.objects, contents.bytes, size)


def _objects_of(omega: NodeClient, bundle: str) -> dict[str, int]:
    try:
        held: Manifest = omega.manifest(bundle)
    except NodeRefusedError as error:
        if error.status != 404:
            raise
        raise UsageError(
            f"OMEGA has no bundle {bundle[:12]} any more, so nothing can be left out for it: export the whole, "
            "without --from."
        ) from None
    return held.objects


def _fetch(omega: NodeClient, wanted: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    digests = list(wanted)
    for start in range(0, len(digests), BATCH_OBJECTS):
        yield from fetch_objects(omega.transport, digests[start : start + BATCH_OBJECTS])


def _write(file: Path, frames: Iterator[bytes]) -> int:
    """Write the file, which is there whole or not at all; count its bytes."""
    part, size = file.with_name(f".{file.name}.part"), 0
    try:
        with part.open("wb") as out:
            for chunk in frames:
                size += out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
        sync_directory(file.parent)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}; nothing was exported.") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return size
