"""What `examples/bluegreen` shows for each proxy: its own parser takes it with the snippet, and no request fails."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from ashat.node.app_process.traffic import snippet
from ashat.node.core.config import NodeConfig, SlotsConfig
from tests.support.drivers.load import Load
from tests.support.needs import requires_caddy, requires_haproxy, requires_nginx
from tests.support.processes.front import Front
from tests.support.processes.node import EXAMPLE, ROOT, NodeProcess, example_app, example_database, push, switch

SHOWN = ROOT / "examples" / "bluegreen"
KINDS = [
    pytest.param("nginx", marks=requires_nginx),
    pytest.param("caddy", marks=requires_caddy),
    pytest.param("haproxy", marks=requires_haproxy),
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_goes_there_and_back_behind_it(tmp_path: Path, kind: str) -> None:
    changed = tmp_path / "changed"
    subprocess.run(["cp", "-a", str(EXAMPLE), str(changed)], check=True)
    (changed / "note").write_text("another release")
    with Front(tmp_path / kind, kind) as front:
        settings = {"slots": front.slots()}
        node = NodeProcess(tmp_path / "public", app=example_app(), database=example_database(), settings=settings)
        with node, node.client() as client:
            front.start()
            checked = subprocess.run(front.check_command(), capture_output=True, text=True, timeout=60, check=False)
            assert checked.returncode == 0, checked.stderr
            old, new = push(client, EXAMPLE), push(client, changed)
            first = switch(client, old, expected=None)
            assert first.status == "succeeded", first.reason
            with Load(f"{front.url}/health") as load:
                load.wait_for(50)
                for there, back in ((new, old), (old, new)):
                    done = switch(client, there, expected=back)
                    assert done.status == "succeeded", done.reason
                    load.wait_for(100)
            assert [reason for reason in load.counted.reasons if not (kind == "caddy" and is_a_reset(reason))] == []
            assert min(load.counted.answered[old], load.counted.answered[new]) > 0


def is_a_reset(reason: str) -> bool:
    """Tell whether it is what Caddy's reload does to a connection that it has not accepted yet, where the kernel does
    not give such a one to Caddy's new socket."""
    migrates = Path("/proc/sys/net/ipv4/tcp_migrate_req")
    return reason.startswith("ConnectionResetError") and not (migrates.exists() and migrates.read_text().strip() == "1")


def test_the_settings_shown_are_settings() -> None:
    content = tomllib.loads((SHOWN / "node.toml").read_text())
    loaded = NodeConfig.load(SHOWN / "node.toml")
    assert loaded.slots.ports == content["slots"]["ports"] == [8001, 8002]
    assert str(loaded.slots.snippet) in (SHOWN / "nginx.conf").read_text()


@pytest.mark.parametrize(
    ("proxy", "lines"),
    [
        ("nginx", "server 127.0.0.1:8002;\n"),
        ("caddy", "to 127.0.0.1:8002\n"),
        ("haproxy", "backend front\n    server green 127.0.0.1:8002\n"),
    ],
)
def test_the_snippet_names_the_slot_and_nothing_else(proxy: str, lines: str) -> None:
    settings = {"ports": [8001, 8002], "proxy": proxy, "backend": "front", "snippet": "s", "reload": ["true"]}
    head, _, rest = snippet(SlotsConfig.model_validate(settings), "green").partition("\n")
    assert head.startswith("# ")
    assert rest == lines
