"""Make the pictures of Prefect's UI in docs/pictures: `python scripts/pictures.py [--both DIRECTORY]`.

A control plane and servers are started in a temporary directory, with a release that runs and one that waits at its
gate; a browser shows them. Where no font has emoji, it draws their marks as boxes. `--both` leaves each page of both of
Prefect's UIs in a directory, to be looked at.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.drivers.browser import PrefectUi, PrefectUiV2, open_browser  # noqa: E402
from tests.support.processes.stack import Stack  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
SIZE = {"width": 1400, "height": 1000}
_SETTLE_MS = 1500  # in which charts and dialogs move in


def main() -> None:
    """Take each picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--both", type=Path, help="leave each page of both UIs in this directory instead")
    both: Path | None = parser.parse_args().both
    with tempfile.TemporaryDirectory(prefix="ashat-pictures-") as directory:
        os.environ.setdefault("ASHAT_TEST_HOMES", directory)
        with Stack(Path(directory) / "stack", mainframes=2, reconciles=True) as stack, open_browser() as page:
            page.set_viewport_size(SIZE)  # type: ignore[arg-type]
            gate = waiting(stack)
            take(PrefectUi(page, stack.home), gate, both or PICTURES, "")
            if both:
                take(PrefectUiV2(page, stack.home), gate, both, "-v2")


def take(ui: PrefectUi, gate: str, into: Path, suffix: str) -> None:
    """Take the pictures of one of the UIs."""

    def picture(name: str) -> None:
        ui.page.wait_for_timeout(_SETTLE_MS)
        ui.page.screenshot(path=into / f"{name}{suffix}.png")

    ui.show_runs()
    picture("runs")
    ui.show_form("release/release")
    picture("release-form")
    ui.show_run(gate, "Suspended")
    ui.open_gate()
    picture("gate")


def waiting(stack: Stack) -> str:
    """Ship a first release, and bring a second one to its gate; the run that waits there."""
    stack.deploy("configure", "source", "raos", str(stack.source))
    stack.ship("UPD-2026-11", "RaOS 9.4.1, the first release")
    module = stack.source / "Modules" / "Chat" / "__init__.py"
    module.write_text(module.read_text("utf-8").replace("PAGE = 50", "PAGE = 80"), "utf-8")
    stack.deploy("push", "UPD-2026-12", "Chat shows more at once", "--commit", "Chat shows more at once")
    stack.deploy("verify", "UPD-2026-12")
    gate = stack.wait_asked("UPD-2026-12").gate
    assert gate is not None
    return gate.run


if __name__ == "__main__":
    main()
