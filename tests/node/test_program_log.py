"""What the program wrote goes with the reason why it did not start, and can be asked for: bounded, without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from ashat.node.app_process.output import READ_BYTES, WIDTH
from ashat.protocol.messages import OUTPUT_LINES, OUTPUT_WIDTH
from tests.support.processes.node import NodeProcess, push, switch, tiny_app, tiny_bundle

SECRETS = ("hunter2000", "s3same-0pen", "ashat_0123456789abcdefghij")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    app = {**tiny_app(), "start_timeout": 3, "stop_timeout": 1, "env": {"DB_PASSWORD": SECRETS[0]}}
    database = {"dsn": f"postgresql://raos:{SECRETS[1]}@127.0.0.1:9/raos"}
    with NodeProcess(tmp_path_factory.mktemp("log") / "public", app=app, database=database) as started:
        yield started


@pytest.fixture(scope="module")
def client(node: NodeProcess) -> Iterator[NodeClient]:
    with node.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def good(client: NodeClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    source = tiny_bundle(tmp_path_factory.mktemp("good") / "source", says="the good one is here\n")
    bundle = push(client, source)
    assert switch(client, bundle, expected=None).status == "succeeded"
    return bundle


def words(client: NodeClient, good: str, source: Path) -> tuple[str, ...]:
    operation = switch(client, push(client, source), expected=good)
    assert (operation.status, operation.switched_back) == ("failed", True)
    return operation.output


@pytest.mark.parametrize("behaviour", ["crash", "sick"])
def test_the_last_lines_come_with_did_not_start(client: NodeClient, good: str, tmp_path: Path, behaviour: str) -> None:
    says = "".join(f"line {number}\n" for number in range(100))
    said = words(client, good, tiny_bundle(tmp_path / "bad", behaviour, says=says))
    end = ("told to crash",) if behaviour == "crash" else ()
    first = 100 - OUTPUT_LINES + len(end)
    assert said == (*(f"line {number}" for number in range(first, 100)), *end)


def test_they_are_of_that_start_alone_and_neither_steer_a_terminal_nor_tell_a_secret(
    client: NodeClient, good: str, tmp_path: Path
) -> None:
    says = f"\x1b[2J\u202egone {'x' * 500}\n" + "".join(f"it is {secret} now\n" for secret in SECRETS)
    said = words(client, good, tiny_bundle(tmp_path / "bad", "crash", says=says))
    assert "the good one is here" not in said
    assert said[0].startswith(r"\x1b[2J\u202egone xxx")
    assert len(said[0]) == OUTPUT_WIDTH
    assert said[1:] == ("it is *** now", "it is *** now", "it is - now", "told to crash")


def test_a_release_that_never_started_has_no_lines(client: NodeClient, good: str, tmp_path: Path) -> None:
    bad = tiny_bundle(tmp_path / "bad", "sick")
    assert words(client, good, bad) == (), "what others wrote is none of its own"


@pytest.mark.usefixtures("good")
def test_the_log_can_be_asked_for_and_followed(node: NodeProcess, client: NodeClient) -> None:
    log = node.data / "app.log"
    log.write_text("".join(f"line {number}\n" for number in range(3000)))
    found = client.program_log(5)
    assert (found.log, found.position) == ("app.log", log.stat().st_size)
    assert found.lines == [f"line {number}" for number in range(2995, 3000)]
    assert client.program_log(after=found.position).lines == []
    with open(log, "a") as file:
        file.write("pass=word and\nmore")
    more = client.program_log(after=found.position)
    assert more.lines == ["pass=*** and", "more"]
    log.write_text("it was cut\n")
    assert client.program_log(after=more.position).lines == ["it was cut"]
    log.with_name("app.log.1").write_text("before that\n")
    assert client.program_log().lines == ["before that", "it was cut"]


@pytest.mark.usefixtures("good")
def test_it_costs_a_bound_whatever_is_in_it(node: NodeProcess, client: NodeClient) -> None:
    log = node.data / "app.log"
    log.with_name("app.log.1").unlink(missing_ok=True)
    log.write_bytes(b"\xff" * (READ_BYTES * 2) + b"\n" + b"a" * 5000 + b"\n" + b"\0\x1b\n" * 3000)
    found = client.program_log(1000)
    assert found.lines == [r"\x00\x1b"] * 1000
    log.write_bytes(b"x" * READ_BYTES + b"\n" + b"a" * 5000 + b"\nend\n")
    assert [len(line) for line in client.program_log(1000).lines[-2:]] == [WIDTH, 3]
    log.write_bytes(b"half a secret" * READ_BYTES)
    assert client.program_log(1000).lines == []
    log.unlink()
    assert client.program_log(1000).lines == []
