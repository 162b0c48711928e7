"""Runs a Public Server for the self-test: one node on this machine, which runs the release that is tried."""

from __future__ import annotations

import json
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ashat.bundle.manifest import Manifest
from ashat.bundle.pack import pack_directory
from ashat.client.local_node import end_nodes, make_node, sample_directory
from ashat.client.node import NodeClient
from ashat.errors import AshatError
from ashat.protocol.messages import OperationRequest, Role
from ashat.raos_toml.load import raos_toml_of
from ashat.verification.policy import Policy
from tasks.checks.kit.base import CheckContext

# Less patience than a real server has, so that a release that is broken on purpose is noticed quickly.
SETTINGS = {
    "ASHAT_NODE_APP__COMMAND": json.dumps([sys.executable, "raos.py"]),
    "ASHAT_NODE_APP__SETTLE": "0.2",
    "ASHAT_NODE_APP__START_TIMEOUT": "6",
    "ASHAT_NODE_APP__HEALTH_TIMEOUT": "2",
    "ASHAT_NODE_APP__HEALTH_INTERVAL": "0.5",
    "ASHAT_NODE_APP__STOP_TIMEOUT": "2",
    "ASHAT_NODE_APP__RESTART_DELAY": "0.1",
    "ASHAT_NODE_APP__RESTART_DELAY_LIMIT": "0.5",
    "ASHAT_NODE_DATABASE__DSN": "sqlite:///{data}/raos.db",
    "ASHAT_NODE_DATABASE__TIMEOUT": "1",
}
# The sample's promises, so changed that checking them takes less time.
QUICKER = (
    ("start_seconds = 10", "start_seconds = 5"),
    ("time_limit = 2", "time_limit = 1"),
    ("settle_seconds = 2", "settle_seconds = 1"),
    ("requests = 300", "requests = 40"),
    ("concurrency = 4", "concurrency = 8"),
)
# The release's own checks.
OWN = """
[[check]]
name = "greeting"
title = "Visitors are greeted"
path = "/"
contains = "Welcome to RaOS"

[[check]]
name = "boards"
path = "/api/forum/boards"
severity = "medium"
matches = '"threads": ?\\d'
"""
TIME_LIMIT = 30.0
SOAK_SECONDS = 1
_SWITCH_SECONDS = 60.0
_SHOWS_ITSELF_SECONDS = 10.0


class StagingError(AshatError):
    """The self-test's own server did not do what it should."""


class Staging:
    """A node and what runs on it now. `data` is its data directory."""

    def __init__(self, client: NodeClient, data: Path) -> None:
        self.client = client
        self.data = data
        self.current: str | None = None

    def run(self, tree: Path) -> str:
        """Have the node run `tree`; return its digest.

        Raises:
            StagingError: the node switched back, and says why.
        """
        with pack_directory(tree) as packed:
            bundle = self.client.push_bundle(packed).bundle
        self.switch(bundle)
        return bundle

    def switch(self, bundle: str | None) -> None:
        """Have the node run a bundle that it has, or nothing."""
        if bundle == self.current:
            return
        request = OperationRequest(
            action="switch", bundle=bundle, expected_current=self.current, update_id="SELF-TEST", attempt=1
        )
        identity = uuid.uuid4().hex
        self.client.start_operation(identity, request)
        operation = self.client.wait_operation(identity, timeout=_SWITCH_SECONDS)
        if operation.status != "succeeded":
            raise StagingError(f"The self-test's server refused a release: {operation.reason}")
        self.current = bundle

    def forget_the_database(self) -> None:
        """Stop the program, and let the next one begin with an empty database."""
        self.switch(None)
        shutil.rmtree(self.data / "app-data", ignore_errors=True)

    def context(self, previous: Manifest | None = None, **changes: Any) -> CheckContext:
        """Make the context in which a check looks at the release that runs now."""
        assert self.current is not None
        manifest = self.client.manifest(self.current)
        url = self.client.state().app.url
        assert url is not None
        given: dict[str, Any] = {
            "public": self.client,
            "app_url": url,
            "bundle": self.current,
            "manifest": manifest,
            "raos": raos_toml_of(manifest, self._reader(manifest)),
            "source": self._reader(manifest),
            "previous": previous,
            "previous_raos": raos_toml_of(previous, self._reader(previous)) if previous else None,
            "time_limit": TIME_LIMIT,
            "policy": Policy(soak_seconds=SOAK_SECONDS),
        }
        return CheckContext(**{**given, **changes})

    def wait_until_unhealthy(self) -> None:
        """Ask for the program's health until a fault that waits for that shows itself, and the node has noted it.

        Raises:
            StagingError: it never did.
        """
        deadline = time.monotonic() + _SHOWS_ITSELF_SECONDS
        while not self._shows_itself():
            if time.monotonic() > deadline:
                raise StagingError("A seeded fault that shows itself late never did.")
            time.sleep(0.05)

    def _shows_itself(self) -> bool:
        probe = self.client.probe_health()
        if probe.restarts:
            return True
        if probe.status is None:  # it has ended, which the node notes a moment later
            return self.client.state().app.status == "backing-off"
        return not probe.healthy

    def _reader(self, manifest: Manifest) -> Callable[[str], bytes]:
        return lambda path: self.client.file_bytes(manifest, path)


@contextmanager
def staging(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[Staging]:
    """Run a node below `directory`, which ends with the block.

    Raises:
        LocalNodeError: it did not start.
    """
    node = make_node(directory / "staging", Role.PUBLIC, {**SETTINGS, **(settings or {})})
    try:
        node.serve()
        node.wait_until_up()
        with node.client() as client:
            yield Staging(client, node.directory)
    finally:
        end_nodes([node])


def quick_sample(place: Path) -> Path:
    """Copy the good sample program to `place`, with checks of its own, and promises that take less time to check.

    Raises:
        StagingError: the sample no longer says what is to be quickened.
    """
    shutil.copytree(sample_directory(), place, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    file = place / "raos.toml"
    text = file.read_text(encoding="utf-8")
    for old, new in QUICKER:
        if old not in text:
            raise StagingError(f"The sample's raos.toml no longer holds {old!r}.")
        text = text.replace(old, new)
    file.write_text(text + OWN, encoding="utf-8")
    return place
