"""Who may ask a node what, who has it, and what it writes down of that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ashat.bundle.pack import pack_directory
from ashat.client.node import NodeClient
from ashat.client.transfer import missing
from ashat.errors import NodeRefusedError, NodeUntrustedError, WrongRoleError
from ashat.node.access.tokens import TokenFile
from ashat.node.api.middleware import JSON_LIMIT
from ashat.protocol.messages import LeaseRequest, Role, Scope
from tests.support.fakes.certificates import make_certificate
from tests.support.processes.node import NodeProcess, push, switch, tiny_app, tiny_bundle

DIGEST = "a" * 64
SWITCH = {"action": "switch", "bundle": DIGEST, "expected_current": None, "update_id": "UPD-1", "attempt": 1}
LEASE = {"holder": "UPD-1/1", "who": "kim", "why": "push", "ttl": 60}
CALLS: list[tuple[str, str, Any, Scope]] = [
    ("GET", "/v1/state", None, Scope.READ),
    ("GET", "/metrics", None, Scope.READ),
    ("GET", "/v1/tree", None, Scope.READ),
    ("GET", "/v1/probes/health", None, Scope.READ),
    ("GET", "/v1/probes/release", None, Scope.READ),
    ("GET", "/v1/probes/modules", None, Scope.READ),
    ("POST", "/v1/probes/database", {"tables": []}, Scope.READ),
    ("GET", "/v1/operations/op", None, Scope.READ),
    ("GET", f"/v1/objects/{DIGEST}", None, Scope.READ),
    ("GET", f"/v1/bundles/{DIGEST}", None, Scope.READ),
    ("GET", "/v1/logs/errors", None, Scope.PUSH),
    ("POST", "/v1/objects/missing", {"digests": [DIGEST]}, Scope.PUSH),
    ("PUT", f"/v1/bundles/{DIGEST}", {}, Scope.PUSH),
    ("PUT", "/v1/lease", LEASE, Scope.PUSH),
    ("DELETE", "/v1/lease?holder=nobody", None, Scope.PUSH),
    ("PUT", "/v1/operations/op", SWITCH, Scope.PUSH),
]
INCLUDES = {
    Scope.READ: {Scope.READ},
    Scope.PUSH: {Scope.READ, Scope.PUSH},
    Scope.PROMOTE: {Scope.READ, Scope.PROMOTE},
    Scope.LICENCES: {Scope.READ, Scope.LICENCES},
    Scope.ADMIN: set(Scope),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("access") / "public", app=tiny_app()) as started:
        yield started


@pytest.fixture
def client(node: NodeProcess) -> Iterator[NodeClient]:
    with node.client() as opened:
        yield opened


def ask(node: NodeProcess, method: str, path: str, body: Any = None, authorization: str = "") -> httpx.Response:
    headers = {"Authorization": authorization} if authorization else {}
    return httpx.request(method, node.url + path, json=body, headers=headers)


@pytest.mark.parametrize(("method", "path", "body", "scope"), CALLS)
def test_each_call_wants_its_scope(node: NodeProcess, method: str, path: str, body: Any, scope: Scope) -> None:
    for wrong in ("", "Bearer", "Bearer wrong", "Basic abc", "Licence RACORE-00000000-00000000-00000000"):
        answer = ask(node, method, path, body, wrong)
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated"), wrong
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for own in Scope:
        answer = ask(node, method, path, body, f"Bearer {node.token(own)}")
        if scope in INCLUDES[own]:
            assert answer.status_code not in (401, 403), (own, answer.text)
        else:
            assert (answer.status_code, answer.json()["error"]) == (403, "forbidden"), own
            assert f"'{scope}'" in answer.json()["detail"]


def test_anyone_may_ask_who_it_is_and_whether_it_serves(node: NodeProcess) -> None:
    assert ask(node, "GET", "/healthz").json() == {"status": "ok"}
    identity = ask(node, "GET", "/v1/identity").json()
    assert identity["role"] == "public"
    assert identity["name"] == "public"


def test_on_omega_a_change_takes_promote_and_a_client_that_expects_another_sends_nothing(
    node: NodeProcess, tmp_path: Path
) -> None:
    with NodeProcess(tmp_path / "omega", role=Role.OMEGA) as omega:
        for method, path, body in (("PUT", "/v1/lease", LEASE), ("PUT", "/v1/operations/op", SWITCH)):
            assert ask(omega, method, path, body, f"Bearer {omega.token(Scope.PUSH)}").status_code == 403
            assert ask(omega, method, path, body, f"Bearer {omega.token(Scope.PROMOTE)}").status_code != 403
        with omega.client(Scope.READ, expect_role=Role.PUBLIC) as client:
            for asked in (client.check_role, client.state):
                with pytest.raises(WrongRoleError, match="is a server of the role omega, not public"):
                    asked()
        with node.client() as public, pack_directory(tiny_bundle(tmp_path / "source")) as packed:
            bundle = public.push_bundle(packed).bundle
            with omega.client(expect_role=Role.PUBLIC) as wrong:
                for send in (
                    lambda: wrong.push_bundle(packed),
                    lambda: wrong.relay_bundle(public, bundle),
                    lambda: public.relay_bundle(wrong, bundle),
                ):
                    with pytest.raises(WrongRoleError, match="is a server of the role omega, not public"):
                        send()
            with omega.client(expect_role=Role.OMEGA) as right:
                objects = [file.sha256 for file in packed.manifest.files]
                assert missing(right.transport, objects) == objects
                assert public.relay_bundle(right, bundle).bundle == bundle


def test_a_token_works_from_when_it_is_added_until_it_is_revoked(node: NodeProcess) -> None:
    tokens = TokenFile(node.data / "tokens.json")
    token, secret = tokens.add("kim", [Scope.READ])
    assert ask(node, "GET", "/v1/state", authorization=f"Bearer {secret}").status_code == 200
    TokenFile(node.data / "tokens.json").revoke(token.id)
    assert ask(node, "GET", "/v1/state", authorization=f"Bearer {secret}").status_code == 401


def test_a_token_file_that_others_can_read_opens_nothing(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public") as node:
        (node.data / "tokens.json").chmod(0o644)
        tokens = node.data / "tokens.json"
        tokens.write_text(tokens.read_text() + "\n")
        assert ask(node, "GET", "/v1/state", authorization=f"Bearer {node.token()}").status_code == 401
        assert f"chmod 600 {tokens}" in node.log()


def test_one_update_has_the_server_at_a_time(client: NodeClient, tmp_path: Path) -> None:
    mine = client.acquire_lease(LeaseRequest(holder="UPD-1/1", who="kim", why="push", ttl=60))
    again = client.acquire_lease(LeaseRequest(holder="UPD-1/1", who="kim", why="verify", ttl=90))
    assert again.since == mine.since
    assert again.expires > mine.expires
    assert client.state().lease == again

    other = LeaseRequest(holder="UPD-2/1", who="ada", why="push", ttl=60)
    with pytest.raises(NodeRefusedError, match=r"UPD-1/1 has this server \(kim: verify\)") as refused:
        client.acquire_lease(other)
    assert refused.value.status == 423
    lease = refused.value.body["lease"]
    assert isinstance(lease, dict)
    assert lease["holder"] == "UPD-1/1"

    bundle = push(client, tiny_bundle(tmp_path / "source"))
    for holder in ("UPD-2/1", None):
        with pytest.raises(NodeRefusedError) as leased:
            switch(client, bundle, expected=None, holder=holder)
        assert leased.value.body["error"] == "leased"
    client.release_lease("UPD-2/1")
    assert client.state().lease == again
    assert switch(client, bundle, expected=None, holder="UPD-1/1").status == "succeeded"
    client.release_lease("UPD-1/1")
    assert client.state().lease is None
    assert client.acquire_lease(other).holder == "UPD-2/1"
    client.release_lease("UPD-2/1")
    assert switch(client, None, expected=bundle).status == "succeeded"


def test_a_lease_outlives_the_node_and_ends_by_itself(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public") as node, node.client() as client:
        mine = LeaseRequest(holder="UPD-1/1", who="kim", why="push", ttl=60)
        lease = client.acquire_lease(mine)
        node.kill9()
        node.start()
        assert client.state().lease == lease
        other = LeaseRequest(holder="UPD-2/1", who="ada", why="push", ttl=60)
        with pytest.raises(NodeRefusedError):
            client.acquire_lease(other)
        shorter = client.acquire_lease(mine.model_copy(update={"ttl": 0.2}))
        time.sleep(max(shorter.expires.timestamp() - time.time(), 0) + 0.05)
        assert client.state().lease is None
        assert client.acquire_lease(other).holder == "UPD-2/1"


def test_a_path_cannot_forge_a_line_of_the_log(node: NodeProcess) -> None:
    ask(node, "GET", "/v1/operations/op%0a2026-11-24T00:00:00Z%20INFO%20forged")
    deadline = time.monotonic() + 30
    while "forged" not in node.log():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert r"/v1/operations/op\n2026-11-24T00:00:00Z INFO forged 401" in node.log()


def test_the_figures(node: NodeProcess, client: NodeClient, tmp_path: Path) -> None:
    bundle = push(client, tiny_bundle(tmp_path / "source", m="metrics"))
    assert switch(client, bundle, expected=None, update_id="UPD-M").status == "succeeded"
    figures = client.metrics()
    assert 'ashat_node_operations_total{action="switch",result="succeeded"}' in figures
    assert f'attempt="1",bundle="{bundle}",name="public",release_seq="",role="public",update_id="UPD-M"' in figures
    assert "ashat_node_app_healthy 1.0" in figures
    assert "ashat_node_lease_held 0.0" in figures
    received = next(line for line in figures.splitlines() if line.startswith("ashat_node_received_bytes_total"))
    assert float(received.split()[1]) > 1000
    assert switch(client, None, expected=bundle).status == "succeeded"


def test_the_calls_are_published_with_what_opens_them(node: NodeProcess) -> None:
    published = ask(node, "GET", "/openapi.json").json()
    assert published["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for method, path, _, _ in CALLS:
        path = (
            path.partition("?")[0].replace(DIGEST, "{digest}").replace("/operations/op", "/operations/{operation_id}")
        )
        assert published["paths"][path][method.lower()]["security"] == [{"token": []}], path
    assert "security" not in published["paths"]["/v1/identity"]["get"]


def test_a_body_has_a_limit_and_a_smaller_one_for_strangers(node: NodeProcess) -> None:
    body = b'{"digests": [' + b" " * (1024 * 1024) + b"]}"
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{node.url}/v1/objects/missing", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    headers["Authorization"] = f"Bearer {node.token()}"
    assert httpx.post(f"{node.url}/v1/objects/missing", content=body, headers=headers).json()["missing"] == []
    whole = httpx.post(f"{node.url}/v1/objects/missing", content=body + b" " * JSON_LIMIT, headers=headers)
    assert (whole.status_code, whole.json()["error"]) == (413, "too_large")
    manifest = httpx.put(f"{node.url}/v1/bundles/{DIGEST}", content=body + b" " * JSON_LIMIT, headers=headers)
    assert (manifest.status_code, manifest.json()["error"]) == (422, "digest_mismatch")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"holder": 1}',
        b"\xff",
        b"[" * 100_000,
        b'{"holder": "a\\u001b[2J", "who": "", "why": "", "ttl": 1}',
        b'{"holder": "a", "who": "", "why": "", "ttl": 1e9}',
    ],
)
def test_malformed_bodies_are_refused_in_one_line(node: NodeProcess, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {node.token()}"}
    answer = httpx.put(f"{node.url}/v1/lease", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request"), answer.text
    assert "\n" not in answer.json()["detail"]


def test_tls(tmp_path: Path) -> None:
    tls = make_certificate(tmp_path / "tls")
    with NodeProcess(tmp_path / "public", tls=tls) as node:
        with node.client(Scope.READ) as client:
            assert client.state().role is Role.PUBLIC
        untrusting = NodeClient(node.url, token=node.token(), name="staging")
        with untrusting, pytest.raises(NodeUntrustedError, match="certificate is not trusted"):
            untrusting.state()
