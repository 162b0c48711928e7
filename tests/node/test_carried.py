"""A release that is carried to a Mainframe without a network: installed with every check of the wire, or refused."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from ashat.bundle.manifest import MANIFEST_LIMIT, Manifest
from ashat.bundle.pack import pack_directory
from ashat.cli.commands import carry
from ashat.cli.main import run
from ashat.client.carry import REPORTED, export, find_mainframe
from ashat.client.node import NodeClient
from ashat.common.identifiers import new_key
from ashat.errors import NodeConflictError, UsageError
from ashat.protocol.carried import (
    MAGIC,
    WORD_LIMIT,
    CarriedFile,
    CarriedReport,
    Contents,
    OmegaWord,
    carried_frames,
)
from ashat.protocol.compression import compressed
from ashat.protocol.frames import frame_header
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import OBJECT_LIMIT, Role
from tests.support.builders.signers import People, demanding_omega, install_root
from tests.support.processes.node import NodeProcess, push, tiny_app
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import eventually, mainframe, offer, perform, running, source

NO_NETWORK = "http://127.0.0.1:9"
Objects = list[tuple[str, bytes]]


class World:
    """An OMEGA, its approvers, and the root that they made."""

    def __init__(self, omega: NodeProcess, client: NodeClient, people: People, root: Path, directory: Path) -> None:
        self.omega, self.client, self.people, self.root, self.directory = omega, client, people, root, directory

    def ship(self, update: str, **files: str) -> str:
        """Have OMEGA run and offer a new bundle that two people signed."""
        wanted, _ = self.people.promotion(self.client, push(self.client, source(self.directory, **files)), update)
        assert perform(self.client, wanted).status == "succeeded"
        offer(self.client)
        return running(self.client).bundle

    def export(self, away: Away, file: Path, **options: Any) -> Path:
        """Write what OMEGA offers for a Mainframe into a file."""
        update = running(self.client).update_id
        export(self.client, update, None, find_mainframe(self.client, away.directory.name), file, **options)
        return file


class Away(NodeProcess):
    """A Mainframe in `directory` that reaches no OMEGA."""

    def __init__(self, directory: Path, world: World, **settings: object) -> None:
        self.key = new_key()
        world.client.put_licence(LicenceRequest(key=self.key, name=directory.name))
        super().__init__(
            directory,
            role=Role.MAINFRAME,
            app=tiny_app(),
            settings={
                "poll_interval": 0.2,
                "unsigned_releases": False,
                "trust_root": str(world.root),
                **settings,
            },
            omega=NO_NETWORK,
            licence_key=self.key,
        )

    @property
    def runs(self) -> str | None:
        with self.client() as client:
            current = client.state().current
        return current.bundle if current else None

    def take(self, file: Path, *words: str | Path) -> tuple[int, str]:
        """`ashat-node import` of that file: its exit code, and its last line."""
        ended = ashat_node("import", file, "--config", self.config, *words)
        assert "Traceback" not in ended.stderr
        assert ended.stderr.count("\n") <= 1
        return ended.returncode, ended.stderr or ended.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("carried")
    people = People()
    with demanding_omega(directory / "production") as omega, omega.client() as client:
        root = install_root(omega, people, directory / "root.json")
        yield World(omega, client, people, root, directory)


@pytest.fixture(scope="module")
def baker(world: World) -> Iterator[Away]:
    with Away(world.directory / "baker", world) as node:
        yield node


def test_what_is_carried_runs_and_its_report_comes_back(world: World, baker: Away, tmp_path: Path) -> None:
    first = world.ship("UPD-1", big="x" * 5_000_000)
    file = world.export(baker, tmp_path / "UPD-1.carried")
    assert file.stat().st_size < 1_000_000
    report = tmp_path / "report.json"
    assert baker.take(file, "--report", report) == (0, "UPD-1/1 runs here.")
    assert baker.runs == first
    assert list((baker.data / "imports").iterdir()) == []

    given = CarriedReport.model_validate_json(report.read_bytes())
    before = mainframe(world.client, baker.key)
    assert (before.result, before.last_seen) == ("none", None)
    seen = world.client.put_carried_report(given)
    assert (seen.result, seen.bundle, seen.last_seen) == ("running", first, None)
    assert seen.reason.startswith("carried by hand, written ")

    forged = given.report.model_copy(update={"result": "failed"})
    with pytest.raises(NodeConflictError, match="did not write this report, or it was altered"):
        world.client.put_carried_report(given.model_copy(update={"report": forged}))

    second = world.ship("UPD-2", big="x" * 5_000_000, more="more")
    delta = world.export(baker, tmp_path / "UPD-2.carried", left_out=REPORTED)
    assert read(delta).contents.left_out == first
    assert read(delta).contents.bytes < 20_000
    assert baker.take(delta, "--report", report) == (0, "UPD-2/1 runs here.")
    assert baker.runs == second
    newer = CarriedReport.model_validate_json(report.read_bytes())
    world.client.put_carried_report(newer)
    with pytest.raises(NodeConflictError, match="has reported about release_seq"):
        world.client.put_carried_report(given)
    assert baker.take(delta) == (0, "UPD-2/1 runs here."), "the same again changes nothing"


def read(file: Path) -> CarriedFile:
    with file.open("rb") as opened:
        return CarriedFile(opened, str(file), manifest_limit=MANIFEST_LIMIT)


def whole(file: Path) -> tuple[CarriedFile, bytes, list[tuple[str, bytes]]]:
    """Everything in a file, unverified."""
    with file.open("rb") as opened:
        carried = CarriedFile(opened, str(file), manifest_limit=MANIFEST_LIMIT)
        manifest = carried.manifest()
        return carried, manifest, list(carried.objects(Manifest.parse(manifest).objects))


def written(file: Path, contents: Contents, word: OmegaWord, manifest: bytes, objects: Objects) -> Path:
    """A file that holds that, as a forger would write it: each frame by its digest."""
    raw = word.model_dump_json().encode()
    made = contents.model_copy(update={"word": len(raw), "manifest": len(manifest)})
    file.write_bytes(b"".join(carried_frames(made, raw, manifest, objects)))
    return file


def not_ours(good: Path, _world: World, file: Path) -> Path:
    file.write_bytes(b"PK\x03\x04" + good.read_bytes())
    return file


def other_zstd(_good: Path, _world: World, file: Path) -> Path:
    file.write_bytes(b"".join(compressed([b"another program's, " * 1000])))
    return file


def cut(good: Path, _world: World, file: Path) -> Path:
    file.write_bytes(good.read_bytes()[:-20_000])
    return file


def flipped(good: Path, _world: World, file: Path) -> Path:
    content = bytearray(good.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    return file


def longer(good: Path, _world: World, file: Path) -> Path:
    file.write_bytes(good.read_bytes() + b"more")
    return file


def without_an_object(good: Path, _world: World, file: Path) -> Path:
    carried, manifest, objects = whole(good)
    return written(file, carried.contents, carried.word, manifest, objects[:-1])


def with_another_object(good: Path, _world: World, file: Path) -> Path:
    carried, manifest, objects = whole(good)
    return written(file, carried.contents, carried.word, manifest, [*objects, named(b"a stranger's")])


def with_other_bytes(good: Path, _world: World, file: Path) -> Path:
    carried, manifest, objects = whole(good)
    digest, content = objects[0]
    return written(file, carried.contents, carried.word, manifest, [(digest, content[::-1]), *objects[1:]])


def another_bundle(good: Path, world: World, file: Path) -> Path:
    """Bytes of a thief's own, under what the approvers signed."""
    carried, _, _ = whole(good)
    with pack_directory(source(world.directory, evil="yes")) as packed:
        manifest = packed.manifest
        objects = [(digest, packed.read_object(digest)) for digest in manifest.objects]
    word = carried.word.model_copy(
        update={"offer": carried.word.offer.model_copy(update={"bundle": manifest.digest, "release_seq": 900})}
    )
    contents = Contents(word=1, manifest=1, objects=len(objects), bytes=sum(len(content) for _, content in objects))
    return written(file, contents, word, manifest.canonical, objects)


def unsigned(good: Path, _world: World, file: Path) -> Path:
    """What OMEGA says without anybody's signature."""
    carried, manifest, objects = whole(good)
    return written(file, carried.contents, carried.word.model_copy(update={"trust": {}}), manifest, objects)


def by_strangers(good: Path, world: World, file: Path) -> Path:
    """Signed by the keys of people whom nobody named, all the way from a root of theirs."""
    carried, manifest, objects = whole(good)
    thieves = People()
    root = thieves.begin_with(world.client.trust()).root
    assert root is not None
    trust = {**carried.word.trust, "2.root.json": root}
    return written(file, carried.contents, carried.word.model_copy(update={"trust": trust}), manifest, objects)


def claims_too_much(good: Path, _world: World, file: Path) -> Path:
    carried, manifest, objects = whole(good)
    contents = carried.contents.model_copy(update={"bytes": 1 << 50})
    return written(file, contents, carried.word, manifest, objects)


def bomb(good: Path, _world: World, file: Path) -> Path:
    """Ten gigabytes of zeros in a megabyte, after a proper beginning."""
    carried, manifest, _ = whole(good)
    raw = carried.word.model_dump_json().encode()
    made = carried.contents.model_copy(update={"word": len(raw), "manifest": len(manifest)})
    zeros = repeat(named(bytes(OBJECT_LIMIT)), 2500)
    file.write_bytes(b"".join(carried_frames(made, raw, manifest, zeros)))
    return file


def large_word(_good: Path, _world: World, file: Path) -> Path:
    contents = Contents(word=1, manifest=1, objects=0, bytes=0).model_dump(mode="json") | {"word": WORD_LIMIT + 1}
    raw = json.dumps(contents).encode()
    file.write_bytes(b"".join(compressed([MAGIC + frame_header(named(raw)[0], len(raw)) + raw])))
    return file


def named(content: bytes) -> tuple[str, bytes]:
    return hashlib.sha256(content).hexdigest(), content


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (not_ours, "is no file that deploy export wrote"),
        (other_zstd, "is no file that deploy export wrote"),
        (cut, "was cut or altered"),
        (flipped, "was cut or altered"),
        (longer, "was cut or altered"),
        (without_an_object, "was cut or altered"),
        (with_another_object, "was cut or altered"),
        (with_other_bytes, "was cut or altered"),
        (claims_too_much, "MB are free here"),
        (bomb, "was cut or altered"),
        (large_word, "was cut or altered"),
        (another_bundle, "and not this one"),
        (unsigned, "nobody signed it"),
        (by_strangers, "too few of the holders signed"),
    ],
)
def test_what_was_tampered_with_is_refused_in_one_line(
    world: World, baker: Away, good: Path, forge: Callable[[Path, World, Path], Path], says: str, tmp_path: Path
) -> None:
    before = baker.runs
    code, line = baker.take(forge(good, world, tmp_path / "forged"))
    assert (code, says in line) == (1, True), line
    assert len(line.splitlines()) == 1
    assert (baker.runs, list((baker.data / "imports").iterdir())) == (before, [])
    assert os.listdir(baker.data / "store" / "staging") == []


@pytest.fixture(scope="module")
def good(world: World, baker: Away) -> Path:
    """A file for the baker that is in order, and newer than what the baker runs."""
    world.ship("UPD-3", big=random_text(300_000))
    return world.export(baker, world.directory / "good.carried")


def random_text(size: int) -> str:
    return os.urandom(size // 2).hex()


def test_a_file_for_another_or_for_what_is_not_here_or_older_is_refused(
    world: World, baker: Away, good: Path, tmp_path: Path
) -> None:
    assert baker.take(good) == (0, "UPD-3/1 runs here.")
    with Away(tmp_path / "miller", world) as miller:
        code, line = miller.take(good)
        assert (code, "The file is for baker" in line, "carried to the wrong one" in line) == (1, True, True)
        world.ship("UPD-4")
        delta = world.export(miller, tmp_path / "delta", left_out=baker.runs)
        code, line = miller.take(delta)
        assert (code, "holds only what differs from" in line, "which is not here" in line) == (1, True, True)
        assert miller.runs is None
    newer = world.export(baker, tmp_path / "newer")
    assert baker.take(newer) == (0, "UPD-4/1 runs here.")
    after = baker.runs
    code, line = baker.take(good)
    assert (code, "an older release is refused" in line, baker.runs) == (1, True, after)
    with pytest.raises(UsageError, match="OMEGA offers UPD-4/1 now, and Mainframes take nothing else"):
        export(world.client, "UPD-3", None, find_mainframe(world.client, "baker"), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_the_owners_rules_hold_for_what_is_imported(world: World, tmp_path: Path) -> None:
    with Away(tmp_path / "smith", world, install="ask") as smith:
        bundle = world.ship("UPD-5")
        file, report = world.export(smith, tmp_path / "file"), tmp_path / "report"
        code, line = smith.take(file, "--report", report)
        assert (code, line) == (
            0,
            "UPD-5 is here and waits for whoever runs this machine to say: ashat-node install UPD-5.",
        )
        world.client.put_carried_report(CarriedReport.model_validate_json(report.read_bytes()))
        assert "ashat-node install UPD-5" in mainframe(world.client, smith.key).waits
        smith.restart()
        assert "UPD-5" in ashat_node("updates", "--config", smith.config).stdout
        assert smith.runs is None
        file.unlink()
        assert ashat_node("install", "UPD-5", "--config", smith.config).returncode == 0
        eventually(lambda: smith.runs == bundle, "what was allowed", smith)
        runs = lambda: ashat_node("import-report", report, "--config", smith.config).stdout  # noqa: E731
        eventually(lambda: "UPD-5/1 runs here." in runs(), "the report", smith)
        assert CarriedReport.model_validate_json(report.read_bytes()).report.result == "running"


def test_one_that_does_not_start_is_switched_back_and_reported_once(world: World, baker: Away, tmp_path: Path) -> None:
    before = baker.runs
    wanted, _ = world.people.promotion(
        world.client, push(world.client, source(tmp_path, **{"only-omega": ""})), "UPD-6"
    )
    assert perform(world.client, wanted).status == "succeeded"
    offer(world.client)
    text = baker.config.read_text()
    assert text
    report = tmp_path / "report"
    file = world.export(baker, tmp_path / "file")
    with picky(baker):
        code, line = baker.take(file, "--report", report)
        assert (code, "What runs here keeps running." in line, baker.runs) == (1, True, before)
        told = CarriedReport.model_validate_json(report.read_bytes()).report
        assert (told.result, "exit code 1" in told.reason) == ("failed", True)
        code, _ = baker.take(file)
        assert (code, baker.log().count("Switching to UPD-6/1")) == (1, 2), "each import is one attempt"
    assert baker.take(file) == (0, "UPD-6/1 runs here.")


@contextmanager
def picky(node: Away) -> Iterator[None]:
    """Have the node start no release that holds a file `only-omega`."""
    text = node.config.read_text()
    command = json.dumps(["/bin/sh", "-c", f"test ! -e only-omega || exit 1; exec {sys.executable} -I -S app.py"])
    lines = [f"command = {command}" if line.startswith("command") else line for line in text.splitlines()]
    node.config.write_text("\n".join(lines))
    node.restart()
    yield
    node.config.write_text(text)
    node.restart()


@pytest.mark.parametrize("point", ["mainframe.pulled", "switch.linked", "mainframe.switched"])
def test_a_kill_at_each_fault_point_of_an_import_loses_nothing(world: World, point: str, tmp_path: Path) -> None:
    name = f"dyer-{point}"
    with Away(tmp_path / name, world) as dyer:
        bundle = world.ship(f"UPD-7-{point}")
        file = world.export(dyer, tmp_path / "file")
        dyer.stop()
        dyer.start({"ASHAT_FAULT": point})
        code, line = dyer.take(file, "--wait", "2")
        assert code == 0, line
        dyer.wait_until_dead()
        file.unlink()
        dyer.start()
        eventually(lambda: dyer.runs == bundle, "what was imported", dyer)
        report = tmp_path / "report"
        runs = lambda: ashat_node("import-report", report, "--config", dyer.config).stdout  # noqa: E731
        eventually(lambda: "runs here." in runs(), "the report", dyer)


def test_the_operators_commands(
    world: World, baker: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deploy(*words: object) -> tuple[int, str]:
        code = run(list(map(str, words)))
        said = capsys.readouterr()
        return code, said.err or said.out

    monkeypatch.setattr(carry, "open_omega", lambda *_, **__: world.omega.client())
    bundle, file, report = world.ship("UPD-8"), tmp_path / "file", tmp_path / "report"
    code, said = deploy("export", "UPD-8", file, "--for", "baker")
    assert (code, "UPD-8/1 for baker" in said, "It can be imported until" in said) == (0, True, True)
    assert baker.take(file, "--report", report) == (0, "UPD-8/1 runs here.")
    code, said = deploy("import-report", report)
    assert (code, "baker reported release_seq" in said, "as running: carried by hand" in said) == (0, True, True)
    code, said = deploy("export", "UPD-8", file, "--for", "baker", "--from", "reported", "--json")
    written = json.loads(said)
    assert (code, written["left_out"], written["objects"]) == (0, bundle, 0)
    for words, why in (
        (("export", "UPD-8", file, "--for", "nobody"), "No Mainframe is 'nobody'"),
        (("export", "UPD-9", file, "--for", "baker"), "OMEGA offers UPD-8/1 now"),
        (("export", "UPD-8", file, "--for", "baker", "--from", "12"), "--from takes a bundle's digest"),
        (("export", "UPD-8", file, "--for", "baker", "--from", "0" * 64), "OMEGA has no bundle 000000000000 any more"),
        (("export", "UPD-8", tmp_path / "no" / "file", "--for", "baker"), "cannot be written"),
        (("import-report", file), "is no report that ashat-node import wrote"),
    ):
        code, said = deploy(*words)
        assert (code != 0, why in said, said.count("\n")) == (True, True, 1), said


def test_who_cannot_import_says_so(world: World, baker: Away, good: Path) -> None:
    elsewhere = ashat_node("import", good, "--config", world.omega.config)
    assert (elsewhere.returncode, "no Mainframe" in elsewhere.stderr) == (2, True)
    baker.stop()
    code, line = baker.take(good)
    assert (code, "does not run" in line, "Nothing was changed." in line) == (2, True, True)
    baker.start()
    code, line = baker.take(good.parent / "not-there")
    assert (code, "cannot be taken in: No such file" in line) == (2, True), line
