"""Have a command's control plane ready: the first thing that a command does which asks Prefect or a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashat.cli.terminal import output

if TYPE_CHECKING:
    from ashat.cli.control_plane.connect import ControlPlane


def ready(*, dry_run: bool = False) -> ControlPlane:
    """Find the control plane that the command uses; start it where none runs, unless it is a dry run.

    Raises:
        ControlPlaneError: there is none that answers.
    """
    from ashat.cli.control_plane.connect import ensure_control_plane
    from ashat.settings import Settings

    return ensure_control_plane(Settings(), output.note, may_start=not dry_run)
