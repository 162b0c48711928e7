"""Numbers and times that no record could hold are refused in one line, by a node of every role."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from ashat.client.node import NodeClient
from ashat.common.identifiers import new_key
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import Role
from tests.support.processes.node import NodeProcess, push, tiny_bundle
from tests.support.processes.omega import licence

NUMBERS = [str(2**53 + 1), str(2**63), str(2**64), "9" * 400, "9" * 5000]
TIMES = [
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-12:00",
    "9999-12-31T23:59:59.999999-00:01",
]
EVERY_ROLE = ["/v1/journal/changes?after={}", "/v1/journal/checkpoint?since={}"]
OF_OMEGA = [
    "/v1/mainframe/journal?since={}",
    "/v1/mainframe/release?after={}",
    "/v1/mainframe/log/consistency?from=0&to={}",
]


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("omega"), role=Role.OMEGA) as node:
        yield node


@pytest.fixture(scope="module", params=Role)
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    if request.param is Role.OMEGA:
        yield request.getfixturevalue("omega")
        return
    given = {"omega": "http://127.0.0.1:1", "licence_key": new_key()} if request.param is Role.MAINFRAME else {}
    with NodeProcess(tmp_path_factory.mktemp(request.param), role=request.param, **given) as made:
        yield made


def refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["error"]) == (422, "out_of_range"), answer.text
    assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:20])
@pytest.mark.parametrize("path", EVERY_ROLE)
def test_a_number_of_an_address(node: NodeProcess, path: str, number: str) -> None:
    refused(httpx.get(node.url + path.format(number), headers={"Authorization": f"Bearer {node.token()}"}))


@pytest.mark.parametrize("path", EVERY_ROLE)
def test_the_largest_number_is_taken(node: NodeProcess, path: str) -> None:
    answer = httpx.get(node.url + path.format(2**53), headers={"Authorization": f"Bearer {node.token()}"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:20])
@pytest.mark.parametrize("path", OF_OMEGA)
def test_a_number_of_a_mainframe(omega: NodeProcess, path: str, number: str) -> None:
    with omega.client() as client:
        key = licence(client)
    refused(httpx.get(omega.url + path.format(number), headers={"Authorization": f"Licence {key}"}))


@pytest.mark.parametrize("moment", TIMES)
def test_the_end_of_a_licence(omega: NodeProcess, moment: str) -> None:
    body = {"key": new_key(), "name": "x", "expires": moment}
    headers = {"Authorization": f"Bearer {omega.token()}"}
    refused(httpx.put(f"{omega.url}/v1/licences", json=body, headers=headers))


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_the_ends_of_the_calendar_themselves_are_kept(omega: NodeProcess, moment: str) -> None:
    with NodeClient(omega.url, token=omega.token()) as client:
        kept = client.put_licence(LicenceRequest.model_validate({"key": new_key(), "name": "x", "expires": moment}))
        assert kept.status == ("expired" if moment.startswith("0001") else "active")
        assert kept.id in [each.id for each in client.mainframes()]


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("bytes=0-" + "9" * 5000, 200),
        ("bytes=" + "9" * 5000 + "-", 200),
        ("bytes=²-", 200),
        ("bytes=-" + "9" * 18, 206),
        ("bytes=" + "9" * 18 + "-", 416),
    ],
    ids=lambda value: str(value)[:10],
)
def test_a_range_beyond_is_none_or_refused(omega: NodeProcess, tmp_path: Path, wanted: str, status: int) -> None:
    with omega.client() as client:
        push(client, tiny_bundle(tmp_path / "source", more="some text"))
    headers = {"Authorization": f"Bearer {omega.token()}", "Range": wanted.encode("utf-8")}
    answer = httpx.get(f"{omega.url}/v1/objects/{sha256(b'some text').hexdigest()}", headers=headers)
    assert answer.status_code == status, answer.text
