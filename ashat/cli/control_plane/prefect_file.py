"""`prefect.yaml`: the deployments of this installation, and the flow that each of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

import flows
from ashat.errors import ControlPlaneError

FLOWS = Path(flows.__file__).parent


def read_prefect_file(path: Path) -> list[dict[str, Any]]:
    """Read the deployments that a prefect.yaml describes.

    Raises:
        ControlPlaneError: it cannot be read, or a deployment has no entrypoint.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
        return [entry for entry in entries if entry["entrypoint"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ControlPlaneError(f"{path} cannot be used: {error}") from None


def find_prefect_file() -> Path:
    """Find the project's `prefect.yaml`: beside the packages in a checkout, within `flows` in a wheel.

    Raises:
        ControlPlaneError: it is in neither place.
    """
    for directory in (FLOWS, FLOWS.parent):
        if (directory / "prefect.yaml").is_file():
            return directory / "prefect.yaml"
    raise ControlPlaneError("prefect.yaml is not part of this install; install ashat-deploy again.")
