"""Takes a look at the running release through its node: at what the program cannot fake."""

from __future__ import annotations

from dataclasses import dataclass

from ashat.bundle.manifest import Manifest
from ashat.client.node import NodeClient, none_if_not_found
from ashat.protocol.messages import App
from ashat.protocol.probes import DatabaseProbe, DatabaseProbeRequest, LoggedErrors, ProcessProbe, ReleaseProbe
from ashat.raos_toml.schema import RaosToml

_LEAST_SECONDS = 5.0
_MOST_SECONDS = 600.0
_FILES_A_SECOND = 2000
_BYTES_A_SECOND = 64 * 1024 * 1024


@dataclass(frozen=True)
class Look:
    """What the node saw of the program at one moment; None: it was not asked, or is too old to tell."""

    app: App | None = None
    process: ProcessProbe | None = None
    errors: LoggedErrors | None = None
    release: ReleaseProbe | None = None
    database: DatabaseProbe | None = None


def take_look(
    public: NodeClient, manifest: Manifest | None, seconds: float = _MOST_SECONDS, *, database: bool = False
) -> Look:
    """Look at the release that runs now, whose manifest that is (None: not at its files), and at its sessions in the
    `database`; the files may take `seconds`, or less by their size.

    Raises:
        NodeError: the node does not answer.
    """
    return Look(
        app=public.state().app,
        process=none_if_not_found(public.probe_process),
        errors=none_if_not_found(public.logged_errors),
        release=none_if_not_found(lambda: public.probe_release(_allowed(manifest, seconds))) if manifest else None,
        database=public.probe_database(DatabaseProbeRequest(sessions=True)) if database else None,
    )


def has_database(raos: RaosToml) -> bool:
    """Tell whether the release says that it has a database."""
    return raos.database is not None and raos.database.none is None


def seconds_for(manifest: Manifest) -> float:
    """Compute how many seconds a look at the files of such a release may take."""
    size = sum(file.size for file in manifest.files)
    return min(_LEAST_SECONDS + len(manifest.files) / _FILES_A_SECOND + size / _BYTES_A_SECOND, _MOST_SECONDS)


def _allowed(manifest: Manifest, seconds: float) -> float:
    return max(min(seconds, seconds_for(manifest)), 1.0)
