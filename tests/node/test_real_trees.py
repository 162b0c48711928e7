"""Real trees, as people ship them, from OMEGA to a Mainframe: pushed and equal there, or refused in so many words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.bundle.blob_ids import BlobIds
from ashat.bundle.compare import compare_with_commit
from ashat.bundle.git import git_info
from ashat.bundle.pack import LEFT_OUT, pack_directory, pack_git_ref
from ashat.client.transfer import push_bundle
from ashat.errors import BundleError, NodeError
from ashat.protocol.messages import Role
from ashat.protocol.origins import Differences
from tests.node.test_mainframe import Install, reported
from tests.support.builders.repositories import commit, git, make_repository
from tests.support.needs import requires_registries
from tests.support.processes.node import NodeProcess
from tests.support.processes.omega import licence, offer, promote

pytestmark = requires_registries
_PACKAGES = ("linux-libc-dev", "zlib1g-dev", "zlib1g")
_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1\n"


class PlainMainframe(Install):
    """A Mainframe of `omega` that runs no program, and takes names that Windows cannot hold."""

    def __init__(self, directory: Path, omega: NodeProcess) -> None:
        with omega.client() as client:
            self.key = licence(client, directory.name)
        self.licence = directory / "licence"
        NodeProcess.__init__(
            self,
            directory,
            role=Role.MAINFRAME,
            settings={"poll_interval": 0.2, "windows_names": False},
            omega=omega.url,
            licence_key=self.key,
        )


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("production")
    with NodeProcess(directory, role=Role.OMEGA, settings={"windows_names": False}) as node:
        yield node


@pytest.fixture(scope="module")
def baker(omega: NodeProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Install]:
    with PlainMainframe(tmp_path_factory.mktemp("baker"), omega) as node:
        yield node


def run(*words: str | Path, cwd: Path | None = None, **env: str) -> None:
    done = subprocess.run(words, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything in a tree, but what no release holds: bytes and who may run them, targets, directories."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in [*folders, *(name for name in names if name != ".git")]:
            path = Path(directory, name)
            place = str(path.relative_to(root))
            if path.is_symlink():
                found[place] = ("link", os.readlink(path))
            elif path.is_dir():
                found[place] = ("directory",)
            else:
                found[place] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


def ship_and_compare(omega: NodeProcess, baker: Install, source: Path) -> int:
    """Ship a tree to the Mainframe, and compare what lies on both servers with it; how many links it has."""
    with omega.client() as client:
        with pack_directory(source, windows_names=False) as packed:
            push_bundle(client.transport, packed)
        current = promote(client, packed.manifest.digest)
        offer(client)
        baker.wait_until_runs(current)
    wanted = listing(source)
    for node in (omega, baker):
        assert listing(node.data / "current") == wanted
        with node.client() as client:
            tree = client.tree()
        assert (tree.listing, tree.extra) == (packed.manifest.listing, [])
    return len(packed.manifest.links)


def test_node_modules_with_their_programs(omega: NodeProcess, baker: Install, tmp_path: Path) -> None:
    words = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", tmp_path / "app")
    run(*words, "semver@7.6.3", "which@4.0.0", npm_config_cache=str(tmp_path / "cache"))
    assert os.readlink(tmp_path / "app/node_modules/.bin/semver") == "../semver/bin/semver.js"
    assert ship_and_compare(omega, baker, tmp_path / "app") >= 2
    program = baker.data / "current/node_modules/.bin/semver"
    told = subprocess.run([program, "1.2.3"], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == "1.2.3\n"


def test_a_virtual_environment(omega: NodeProcess, baker: Install, tmp_path: Path) -> None:
    venv.create(tmp_path / "linked", symlinks=True, with_pip=False)
    with pytest.raises(BundleError, match="absolute path") as refused:
        pack_directory(tmp_path / "linked")
    assert "bin/python" in str(refused.value)
    venv.create(tmp_path / "copied", symlinks=False, with_pip=False)
    assert os.readlink(tmp_path / "copied/lib64") == "lib"
    (tmp_path / "copied/lib64/python").symlink_to("python3" + f".{sys.version_info.minor}")
    assert ship_and_compare(omega, baker, tmp_path / "copied") >= 2


def test_what_a_wheel_installs(omega: NodeProcess, baker: Install, tmp_path: Path) -> None:
    pip = ("pip", "install", "--quiet", "--no-compile", "--no-deps", "--target", tmp_path / "wheels")
    run(*pip, "tzdata", "packaging", PIP_CACHE_DIR=str(tmp_path / "cache"))
    ship_and_compare(omega, baker, tmp_path / "wheels")
    assert (baker.data / "current/tzdata/zoneinfo/Europe/Rome").read_bytes().startswith(b"TZif")


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Debian packages, unpacked each."""
    root = tmp_path_factory.mktemp("debian")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        run("apt-get", "download", "-q", *_PACKAGES, cwd=Path(directory))
        for package in Path(directory).glob("*.deb"):
            run("dpkg-deb", "-x", package, root / package.name.partition("_")[0])
    yield root
    shutil.rmtree(root)


def test_debian_headers_differ_in_case(omega: NodeProcess, baker: Install, debian: Path) -> None:
    with pytest.raises(BundleError, match="only in case") as refused:
        pack_directory(debian / "linux-libc-dev")
    assert "xt_" in str(refused.value)
    ship_and_compare(omega, baker, debian / "linux-libc-dev")
    with pack_directory(debian / "linux-libc-dev", windows_names=False) as packed:
        names = {path.rpartition("/")[2] for path in packed.manifest.by_path}
    assert {"xt_CONNMARK.h", "xt_connmark.h"} <= names


def test_debian_libraries_and_their_links(omega: NodeProcess, baker: Install, debian: Path) -> None:
    assert ship_and_compare(omega, baker, debian / "zlib1g") >= 1
    development = debian / "zlib1g-dev"
    links = {path: os.readlink(path) for path in development.rglob("*") if path.is_symlink()}
    absolute = [path for path, target in links.items() if target.startswith("/")]
    if absolute:
        with pytest.raises(BundleError, match="absolute path"):
            pack_directory(development)
        for path in absolute:
            path.unlink()
    ship_and_compare(omega, baker, development)


def test_a_repository_with_a_submodule_and_a_pointer(omega: NodeProcess, baker: Install, tmp_path: Path) -> None:
    make_repository(tmp_path / "lib", {"lib.txt": "lib\n"})
    (tmp_path / "lib" / "same").symlink_to("lib.txt")
    commit(tmp_path / "lib", {})
    make_repository(tmp_path / "origin", {"raos.toml": "x = 1\n", "asset.bin": _POINTER})
    git(tmp_path / "origin", "submodule", "--quiet", "add", (tmp_path / "lib").as_uri(), "vendor/lib")
    (tmp_path / "origin" / "lib").symlink_to("vendor/lib")
    commit(tmp_path / "origin", {})
    tree = tmp_path / "tree"
    git(tmp_path, "clone", "--quiet", str(tmp_path / "origin"), "tree")
    with pytest.raises(BundleError) as refused:
        pack_git_ref(tree, "HEAD")
    assert "submodules that are not in the tree; push a checkout that has them: 'vendor/lib'" in str(refused.value)
    assert "Git LFS pointers in place of files; push a checkout that has the files: 'asset.bin'" in str(refused.value)
    with pytest.raises(BundleError, match="vendor/lib: a submodule is not here"):
        compared(tree)
    git(tree, "submodule", "--quiet", "update", "--init")
    with pytest.raises(BundleError, match=r"asset\.bin: Git LFS left a pointer"):
        compared(tree)
    commit(tree, {"asset.bin": "fetched"})
    assert compared(tree) == Differences()
    assert ship_and_compare(omega, baker, tree) == 2
    assert (baker.data / "current/lib/same").read_text() == "lib\n"


def compared(tree: Path) -> Differences:
    info = git_info(tree)
    assert info is not None
    assert info.commit is not None
    with tempfile.TemporaryDirectory() as directory, pack_directory(tree) as packed:
        return compare_with_commit(packed, tree, info.repository, info.commit, BlobIds(Path(directory, "ids")))


def test_a_node_keeps_to_its_own_rules_for_names(
    omega: NodeProcess, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (tmp_path / "raos.toml").touch()
    (tmp_path / "aux.h").touch()
    with pack_directory(tmp_path, windows_names=False) as packed:
        with NodeProcess(tmp_path_factory.mktemp("strict"), role=Role.PUBLIC) as strict, strict.client() as client:
            with pytest.raises(NodeError, match="reserved name on Windows"):
                push_bundle(client.transport, packed)
            assert packed.manifest.digest not in [*(strict.data / "store" / "bundles").iterdir()]
        with Install(tmp_path_factory.mktemp("strict"), omega) as mainframe, omega.client() as client:
            push_bundle(client.transport, packed)
            current = promote(client, packed.manifest.digest)
            offer(client)
            said = reported(client, mainframe, current.release_seq, "failed")
            assert "reserved name on Windows" in said
