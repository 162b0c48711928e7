"""Every call of every kind of node, against everything that a caller may come with: the table in docs/node-api.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from ashat.node.access.tokens import SCOPES, TokenFile
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import Role, Scope, TokenRole
from tests.support.processes.node import ROOT, NodeProcess

KEY = "RACORE-0123ABCD-0123ABCD-0123ABCD"
CREDENTIALS = ["nothing", *map(str, Scope), "expired", "licence"]
INCLUDES = {
    Scope.READ: {"read"},
    Scope.PUSH: {"read", "push"},
    Scope.PROMOTE: {"read", "promote"},
    Scope.LICENCES: {"read", "licences"},
    Scope.ADMIN: {"read", "push", "promote", "licences", "admin"},
}
CHANGES_PRODUCTION = {
    "PUT /v1/operations/{operation_id}",
    "PUT /v1/offer",
    "PUT /v1/trust",
    "PUT /v1/log",
    "PUT /v1/licences",
    "POST /v1/licences",
    "POST /v1/licences/{licence_id}/renew",
    "POST /v1/licences/{licence_id}/revoke",
    "POST /v1/mainframes/{licence_id}/carried-report",
    "PUT /v1/rollouts/{rollout}",
    "POST /v1/rollouts/{rollout}/open",
    "POST /v1/rollouts/{rollout}/retry",
    "POST /v1/rollouts/{rollout}/{action}",
    "POST /v1/rollouts/{rollout}/override-freeze",
    "POST /v1/freezes",
    "DELETE /v1/freezes/{freeze}",
    "PUT /v1/mainframes/{licence_id}/labels",
}


def table() -> dict[str, str]:
    """What opens each call, as the documentation says."""
    text = (ROOT / "docs" / "node-api.md").read_text().partition("| opened by | calls |")[2].partition("\n\n")[0]
    rules = {}
    for line in text.splitlines()[2:]:
        _, opens, calls, _ = line.split("|")
        for call in re.findall(r"`([A-Z]+ /[^`]*)`", calls):
            assert call not in rules, call
            rules[call] = opens.strip().replace("`", "")
    return rules


RULES = table()
IN_ADDRESS = "a licence in the address"  # of which these questions have none


class Node:
    """A node, the calls that it says it has, and something to come with."""

    def __init__(self, process: NodeProcess) -> None:
        self.process = process
        published = httpx.get(f"{process.url}/openapi.json").json()["paths"]
        self.calls = {
            f"{method.upper()} {path}": words for path, own in published.items() for method, words in own.items()
        }
        self._expired = TokenFile(process.data / "tokens.json").add("old", [Scope.ADMIN])[1]
        tokens = TokenFile(process.data / "tokens.json")
        tokens.rotate(tokens.all()[-1].id, overlap=timedelta(0))

    def ask(self, call: str, credential: str) -> httpx.Response:
        """The answer to a call without a body, by whoever comes with `credential`."""
        method, path = call.split(" ")
        url = self.process.url + path.replace("{digest}", "a" * 64)
        headers = {"Authorization": value} if (value := self._authorization(credential)) else {}
        return httpx.request(method, re.sub(r"{\w+}", "x", url), headers=headers)

    def _authorization(self, credential: str) -> str:
        if credential == "licence":
            return f"Licence {KEY}"
        if credential == "expired":
            return f"Bearer {self._expired}"
        return "" if credential == "nothing" else f"Bearer {self.process.token(Scope(credential))}"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Role, Node]]:
    place = tmp_path_factory.mktemp("scopes")
    with (
        NodeProcess(place / "public") as public,
        NodeProcess(place / "omega", role=Role.OMEGA) as omega,
        NodeProcess(place / "mainframe", role=Role.MAINFRAME, omega=omega.url, licence_key=KEY) as mainframe,
    ):
        with omega.client() as client:
            client.put_licence(LicenceRequest(key=KEY, name="A customer", expires=None))
        yield {process.role: Node(process) for process in (public, omega, mainframe)}


def expected(call: str, role: Role, credential: str) -> int | None:
    """The status with which a caller is refused; None where the call is let through."""
    rule = RULES[call]
    if rule == "nothing":
        return None
    if rule == IN_ADDRESS:
        return 403
    if rule == "a licence":
        return None if credential == "licence" else 401
    if credential in ("nothing", "expired", "licence"):
        return 401
    scope = rule.partition(", on OMEGA ")[2] if role is Role.OMEGA and "on OMEGA" in rule else rule.partition(",")[0]
    return None if scope in INCLUDES[Scope(credential)] else 403


def test_the_table_names_every_call_and_no_other(nodes: dict[Role, Node]) -> None:
    assert sorted({call for node in nodes.values() for call in node.calls}) == sorted(RULES)


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("role", Role)
def test_each_call_opens_to_whom_the_table_says(nodes: dict[Role, Node], role: Role, credential: str) -> None:
    node, wrong = nodes[role], []
    assert len(node.calls) > 20
    for call in node.calls:
        answer, wanted = node.ask(call, credential), expected(call, role, credential)
        found = answer.status_code if answer.status_code in (401, 403) else None
        if found != wanted:
            wrong.append(f"{call}: {answer.status_code} {answer.text}, not {wanted}")
    assert not wrong


def test_a_dev_pushes_and_verifies_and_changes_nothing_of_omega(nodes: dict[Role, Node]) -> None:
    dev, owner = SCOPES[TokenRole.DEV], SCOPES[TokenRole.OWNER]
    for call in RULES.keys() & nodes[Role.PUBLIC].calls:
        opens = [scope for scope in dev[Role.PUBLIC] if expected(call, Role.PUBLIC, scope) is None]
        assert opens or RULES[call] == "admin", call
    reading = {call for call, rule in RULES.items() if rule in ("read", "nothing")}
    for call in nodes[Role.OMEGA].calls:
        allowed = [scope for scope in dev[Role.OMEGA] if expected(call, Role.OMEGA, scope) is None]
        assert bool(allowed) == (call in reading), call
        assert any(expected(call, Role.OMEGA, s) is None for s in owner[Role.OMEGA]) or RULES[call] in (
            "a licence",
            IN_ADDRESS,
        )
    assert nodes[Role.OMEGA].calls.keys() >= CHANGES_PRODUCTION
    assert not CHANGES_PRODUCTION & reading


def test_who_is_refused_is_told_which_role_may(nodes: dict[Role, Node]) -> None:
    def detail(role: Role, call: str) -> Any:
        return nodes[role].ask(call, "read").json()["detail"]

    told = "This needs a token with the scope '{}', such as the role '{}' has; this one has: read."
    assert detail(Role.PUBLIC, "POST /v1/objects") == told.format("push", "dev")
    assert detail(Role.OMEGA, "POST /v1/objects") == told.format("push", "owner")
    assert detail(Role.OMEGA, "PUT /v1/operations/{operation_id}") == told.format("promote", "owner")
    assert "expired at" in nodes[Role.OMEGA].ask("GET /v1/state", "expired").json()["detail"]


def test_a_token_says_what_it_opens(nodes: dict[Role, Node]) -> None:
    with nodes[Role.PUBLIC].process.client(Scope.PUSH) as client:
        found = client.token()
    kept = next(t for t in TokenFile(nodes[Role.PUBLIC].process.data / "tokens.json").all() if t.name == "push")
    assert (found.id, found.name, found.opens, found.expires) == (kept.id, "push", (Scope.READ, Scope.PUSH), None)


def test_docs_say_which_scopes_a_role_has() -> None:
    text = (ROOT / "docs" / "node.md").read_text()
    for duty, by_role in SCOPES.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{duty}` |"))
        cells = [re.findall(r"`(\w+)`", cell) for cell in row.split("|")[3:6]]
        assert cells == [[str(scope) for scope in by_role[role]] for role in Role], duty
