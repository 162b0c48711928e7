"""What OMEGA answers past the framework is what its routes answer, in the same words, and is written down likewise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ashat.common.identifiers import licence_id, new_key
from ashat.protocol.licences import LicenceRequest
from tests.support.builders.signers import People, demanding_omega, install_root
from tests.support.processes.node import NodeProcess, push, tiny_bundle
from tests.support.processes.omega import offer, perform, revoke_licence, running

KEY, REVOKED = new_key(), new_key()


class Offering:
    """An OMEGA that offers a bundle, and how a Mainframe asks it."""

    def __init__(self, node: NodeProcess, bundle: str, digest: str, release_seq: int) -> None:
        self.node, self.bundle, self.digest, self.release_seq = node, bundle, digest, release_seq

    def ask(self, method: str, path: str, *, key: str = KEY, **given: Any) -> httpx.Response:
        headers = {"Authorization": f"Licence {key}", **given.pop("headers", {})}
        return httpx.request(method, f"{self.node.url}/v1/mainframe/{path}", headers=headers, timeout=60, **given)

    def report(self, content: bytes, kind: str = "application/json", *, key: str = KEY) -> httpx.Response:
        return self.ask("POST", "report", key=key, content=content, headers={"Content-Type": kind})


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offering]:
    directory = tmp_path_factory.mktemp("omega")
    people = People()
    with demanding_omega(directory / "omega") as node, node.client() as client:
        install_root(node, people, directory / "root.json")
        bundle = push(client, tiny_bundle(directory / "program"))
        request, _ = people.promotion(client, bundle, "UPD-1")
        perform(client, request)
        offer(client)
        for key in (KEY, REVOKED):
            client.put_licence(LicenceRequest(key=key, name="miller"))
        revoke_licence(client, licence_id(REVOKED))
        digest = next(iter(next(iter(client.manifest(bundle).by_path.values())).objects()))[0]
        yield Offering(node, bundle, digest, running(client).release_seq or 0)


def of(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """What a Mainframe sees of an answer."""
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return answer.status_code, headers, answer.content


# Each in the form in which a Mainframe asks, and in one that is for the routes.
CALLS = {
    "news": ("release?after=0&wait=5", "release?wait=5&after=0"),
    "no news": ("release?after={seq}&wait=0", "release?wait=0&after={seq}"),
    "a file of trust": ("trust/timestamp.json", "trust/timestamp.json"),
    "no file": ("trust/9.production.json", "trust/9.production.json"),
    "a way out": ("trust/%2e%2e%2ftarget", "trust/%2e%2e%2ftarget"),
    "the manifest": ("bundles/{bundle}", "bundles/{bundle}"),
    "an object": ("objects/{digest}", "objects/{digest}"),
    "another bundle": ("bundles/" + "0" * 64, "bundles/" + "0" * 64),
    "another object": ("objects/" + "0" * 64, "objects/" + "0" * 64),
}


@pytest.mark.parametrize(
    "key", [KEY, REVOKED, "RACORE-00000000-00000000-00000000", "no key"], ids=["known", "revoked", "unknown", "no key"]
)
@pytest.mark.parametrize("call", CALLS)
def test_both_ways_answer_alike(omega: Offering, call: str, key: str) -> None:
    names = {"seq": omega.release_seq, "bundle": omega.bundle, "digest": omega.digest}
    direct, routed = (path.format(**names) for path in CALLS[call])
    first = [omega.ask("GET", direct, key=key) for _ in range(2)]  # from the disk, and from memory
    by_route = omega.ask("GET", routed, key=key, headers={"If-None-Match": '"other"'})
    assert of(first[0]) == of(first[1]) == of(by_route)
    assert (first[0].status_code < 400) == (key == KEY and not call.startswith(("no file", "another", "a way")))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"result": "failed", "reason": "exit code 1", "output": ["one", "two"]},
        {"result": "waiting", "reason": "outside its window"},
        {"result": "well"},
        {"release_seq": 0},
        {"release_seq": 99},
        {"bundle": "x"},
        {"reason": "x" * 2001},
        {"reason": "\ud800"},
        {"output": "x" * 70_000},
    ],
)
@pytest.mark.parametrize("key", [KEY, REVOKED], ids=["known", "revoked"])
def test_both_ways_take_the_same_reports(omega: Offering, change: dict[str, Any], key: str) -> None:
    said = {"release_seq": omega.release_seq, "bundle": omega.bundle, "result": "running", **change}
    content = json.dumps(said).encode()
    direct = omega.report(content, key=key)
    routed = omega.report(content, "application/json; charset=utf-8", key=key)
    assert (direct.status_code, direct.content) == (routed.status_code, routed.content)
    assert (direct.status_code == 204) == (key == KEY and change.get("result") in (None, "failed", "waiting") and not (
        {"release_seq", "bundle"} & change.keys() or len(str(change)) > 2000 or change.get("reason") == "\ud800"
    ))  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"nothing"])
def test_what_is_no_report_is_said_alike(omega: Offering, content: bytes) -> None:
    direct, routed = (omega.report(content, kind) for kind in ("application/json", "application/json; charset=utf-8"))
    assert direct.status_code == routed.status_code == 400
    assert direct.json()["error"] == routed.json()["error"] == "bad_request"


def test_each_is_written_down_with_its_licence_and_why_it_was_refused(omega: Offering) -> None:
    omega.ask("GET", "trust/timestamp.json")
    omega.ask("GET", "trust/9.root.json")
    lines = [
        json.loads(line) for line in (omega.node.data / "journal" / "licences.jsonl").read_text().splitlines()[-2:]
    ]
    assert [(line["path"].rpartition("/")[2], line["status"], line["licence"]) for line in lines] == [
        ("timestamp.json", 200, licence_id(KEY)),
        ("9.root.json", 404, licence_id(KEY)),
    ]
    assert "9.root.json" in lines[1]["detail"]


def test_a_licence_that_is_revoked_meanwhile_gets_nothing(omega: Offering, tmp_path: Path) -> None:
    key = new_key()
    with omega.node.client() as client:
        client.put_licence(LicenceRequest(key=key, name="baker"))
        assert omega.ask("GET", f"objects/{omega.digest}", key=key).status_code == 200
        revoke_licence(client, licence_id(key))
    assert omega.ask("GET", f"objects/{omega.digest}", key=key).status_code == 403


def test_many_reports_of_one_moment_are_each_kept(omega: Offering) -> None:
    keys = [new_key() for _ in range(40)]
    with omega.node.client() as client:
        for number, key in enumerate(keys):
            client.put_licence(LicenceRequest(key=key, name=f"many-{number}"))
    said = {"release_seq": omega.release_seq, "bundle": omega.bundle, "result": "running"}

    async def report() -> list[int]:
        async with httpx.AsyncClient(base_url=omega.node.url, timeout=60) as client:
            asked = [
                client.post("/v1/mainframe/report", json=said, headers={"Authorization": f"Licence {key}"})
                for key in keys
            ]
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert asyncio.run(report()) == [204] * len(keys)
    with omega.node.client() as client:
        known = {each.id: each for each in client.mainframes()}
    assert {known[licence_id(key)].result for key in keys} == {"running"}
