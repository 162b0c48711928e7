"""A release of many files, verified the first time and, with one page changed, the second.

The tree is the sample program with a `vendor/`: Wagtail and what it depends on from the package index, which is about
10,000 files and 130 MB; or as many files as are asked for, each of 40 lines of the standard library and of its own.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from ashat.cli.demo.nodes import SETTINGS
from ashat.client.local_node import LocalNode, end_nodes, make_node, sample_directory
from ashat.protocol.messages import Role

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("wagtail==8.0.1",)
_PAGE = Path("Modules", "Content", "pages", "welcome.html")
_FIRST, _SECOND = "VENDORED-1", "VENDORED-2"
_COMMAND_SECONDS = 900.0
_LINES_EACH = 40
_FILES_EACH = 100


@dataclass(frozen=True)
class _Verified:
    """What a verification took in seconds: the command as a whole, each check of it, and processors' time.

    That is of the command and all that it started and waited for, and of the Public Server without its program.
    """

    seconds: float
    checks: dict[str, float]
    processor: dict[str, float]

    def as_json(self, which: str) -> dict[str, Any]:
        """Write it with `which` verification it was in each name."""
        return {f"{which}_{name}": value for name, value in asdict(self).items()}


def measure(written: int = 0) -> dict[str, Any]:
    """Ship the tree twice; how many files and MB it has, and how long both verifications took, in seconds.

    Its `vendor/` has `written` files, or Wagtail where that is 0.
    """
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as name:
        directory = Path(name)
        tree = _make_tree(directory / "tree", written)
        files = [path for path in tree.rglob("*") if path.is_file() and ".git" not in path.relative_to(tree).parts]
        size = sum(path.stat().st_size for path in files)
        deploy = _Deploy(directory / "alpha")
        nodes = [make_node(directory / role, Role(role), SETTINGS) for role in ("public", "omega")]
        try:
            first, second = _ship_twice(deploy, nodes, tree)
        finally:
            deploy.run("down", check=False)
            end_nodes(nodes)
        result: dict[str, Any] = {
            "files": len(files),
            "mb": round(size / 1e6),
            "load": [round(n) for n in os.getloadavg()],
        }
        return result | first.as_json("first") | second.as_json("second")


def _ship_twice(deploy: _Deploy, nodes: list[LocalNode], tree: Path) -> tuple[_Verified, _Verified]:
    for node in nodes:
        node.serve()
    deploy.run("up", "--detach")
    for node in nodes:
        node.wait_until_up()
        variable = f"ASHAT_{node.role.upper()}_TOKEN"
        deploy.run("configure", str(node.role), node.url, node.name, variables={variable: node.token})
    policy = deploy.home / "policy.toml"
    policy.write_text("soak_seconds = 2\n", encoding="utf-8")
    deploy.run("configure", "policy", "default", str(policy))
    first = deploy.push_and_verify(_FIRST, tree, nodes[0])
    digest = json.loads(deploy.run("status", _FIRST, "--json"))["evidence"]
    deploy.run("approve", _FIRST, "--evidence", digest[-8:], "--by", "bench", "--comment", "measured")
    page = tree / _PAGE
    page.write_text(page.read_text("utf-8") + "\n<p>Changed.</p>\n", "utf-8")
    return first, deploy.push_and_verify(_SECOND, tree, nodes[0], "--commit")


class _Deploy:
    """The `deploy` command with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ASHAT_", "PREFECT_", "RAOS_"))}
        self._environment = {**kept, "ASHAT_HOME": str(home)}

    def run(self, *words: str, check: bool = True, variables: Mapping[str, str] | None = None) -> str:
        """Run a command; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "ashat.cli", *words],
            env={**self._environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
        if check and done.returncode:
            raise SystemExit(f"deploy {words[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def push_and_verify(self, update_id: str, tree: Path, public: LocalNode, *options: str) -> _Verified:
        """Push the tree to `public` and verify it; what the verification took."""
        self.run("push", update_id, "The sample with much beside it", "--source", str(tree), *options)
        began, before = time.monotonic(), _processor_seconds(public)
        self.run("verify", update_id)
        seconds, after = time.monotonic() - began, _processor_seconds(public)
        evidence = json.loads(self.run("evidence", update_id, "--json"))
        return _Verified(
            round(seconds, 1),
            {check["name"]: round(check["milliseconds"] / 1000, 1) for check in evidence["checks"]},
            {name: round(after[name] - before[name], 1) for name in after},
        )


def _processor_seconds(public: LocalNode) -> dict[str, float]:
    assert public.process is not None
    node, ended = psutil.Process(public.process.pid).cpu_times(), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"deploy": ended.ru_utime + ended.ru_stime, "public": node.user + node.system}


def _write_files(to: Path, count: int) -> None:
    """Write `count` files of code, no two alike, a hundred in each directory; the same ones each time."""
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    lines = [line for source in sources for line in source.read_text("utf-8").splitlines()]
    chosen = random.Random(1)
    for number in range(count):
        folder = to / f"package{number // _FILES_EACH}"
        folder.mkdir(parents=True, exist_ok=True)
        start = chosen.randrange(len(lines) - _LINES_EACH)
        content = "\n".join([f"# {number}", *lines[start : start + _LINES_EACH], ""])
        (folder / f"module{number}.py").write_text(content, "utf-8")


def _make_tree(to: Path, written: int = 0) -> Path:
    shutil.copytree(sample_directory(), to, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    if written:
        _write_files(to / "vendor", written)
    else:
        _install_packages(to / "vendor")
    own = ("-c", "user.name=ALPHA", "-c", "user.email=alpha@localhost", "-c", "commit.gpgsign=false")
    for words in (
        ("init", "--quiet", "--template="),
        ("add", "--all", "--force", "."),
        ("commit", "--quiet", "-m", "1"),
    ):
        subprocess.run(["git", "-C", str(to), *own, *words], check=True)
    for setting, value in (("user.name", "ALPHA"), ("user.email", "alpha@localhost")):
        subprocess.run(["git", "-C", str(to), "config", setting, value], check=True)
    return to


def _install_packages(to: Path) -> None:
    install = ("pip", "install", "--quiet", "--python", sys.executable, "--target", str(to))
    subprocess.run([str(ROOT / "scripts" / "uv"), *install, *PACKAGES], check=True)
