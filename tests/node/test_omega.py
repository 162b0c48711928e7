"""OMEGA as a process: decisions, the way back, the offer, licences, and what a licence opens."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ashat.client.http import Transport
from ashat.client.node import NodeClient
from ashat.client.transfer import fetch_manifest, fetch_objects
from ashat.common.identifiers import licence_id, new_key
from ashat.errors import NodeAuthError, NodeConflictError, NodeRefusedError
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import Offer, OperationRequest, Role, Scope
from tests.support.processes.node import NodeProcess, push, tiny_app
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import (
    decide,
    licence,
    mainframe,
    offer,
    perform,
    promote,
    promotion,
    revoke_licence,
    roll_back,
    running,
    ship,
    source,
)


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """An OMEGA that runs something."""
    with NodeProcess(tmp_path_factory.mktemp("omega"), role=Role.OMEGA, app=tiny_app()) as node:
        with node.client() as client:
            promote(client, push(client, source(node.directory)))
        yield node


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[NodeProcess]:
    """An OMEGA that never ran anything."""
    with NodeProcess(tmp_path / "fresh", role=Role.OMEGA, app=tiny_app()) as node:
        yield node


@pytest.fixture
def client(omega: NodeProcess) -> Iterator[NodeClient]:
    with omega.client() as found:
        yield found


@pytest.fixture
def new(client: NodeClient, tmp_path: Path) -> str:
    """A bundle that OMEGA has and does not run."""
    return push(client, source(tmp_path))


def refusal(raised: pytest.ExceptionInfo[Any], code: str) -> str:
    """The detail of a node's refusal, which must have that code."""
    assert raised.value.body["error"] == code
    detail = str(raised.value.body["detail"])
    assert "\n" not in detail
    return detail


class TestPromotion:
    def test_without_a_decision_for_exactly_this_changes_nothing(self, client: NodeClient, new: str) -> None:
        before = client.state()
        assert before.current
        now = before.current.bundle
        sound = decide(new, expected=now, seq=before.release_seq + 1)
        wrong = {
            "none": promotion(sound, decision=None),
            "bundle": promotion(sound, bundle=now),
            "update": promotion(sound, update_id="UPD-9"),
            "expected_current": promotion(decide(new, expected=None, seq=sound.release_seq), expected_current=now),
            "release_seq": promotion(decide(new, expected=now, seq=before.release_seq)),
        }
        for name, request in wrong.items():
            with pytest.raises(NodeConflictError) as raised:
                client.start_operation(f"wrong-{name}", request)
            refusal(raised, "decision_missing")
        after = client.state()
        assert (after.current, after.operation, after.release_seq) == (
            before.current,
            before.operation,
            before.release_seq,
        )

    def test_with_one_is_done_once(self, client: NodeClient, new: str) -> None:
        before = client.state()
        now = running(client)
        decision = decide(new, expected=now.bundle, seq=before.release_seq + 3, update="UPD-2")
        first = perform(client, promotion(decision), "promote-1")
        assert first.status == "succeeded"
        assert client.start_operation("promote-1", promotion(decision)) == first
        current = running(client)
        assert (current.bundle, current.release_seq, current.update_id) == (new, before.release_seq + 3, "UPD-2")
        with pytest.raises(NodeConflictError) as raised:
            client.start_operation("promote-1", promotion(decision, reason="another"))
        refusal(raised, "operation_differs")

        assert roll_back(client).release_seq == before.release_seq + 4
        assert running(client).bundle == now.bundle
        with pytest.raises(NodeConflictError) as raised:
            client.start_operation("promote-2", promotion(decision))
        refusal(raised, "decision_used")

    def test_that_failed_may_be_tried_again_until_something_else_is_accepted(
        self, client: NodeClient, new: str, tmp_path: Path
    ) -> None:
        sick = push(client, source(tmp_path, "crash"))
        now = running(client)
        decision = decide(sick, expected=now.bundle, seq=client.state().release_seq + 1)
        for _ in range(2):
            operation = perform(client, promotion(decision))
            assert (operation.status, operation.switched_back) == ("failed", True)
            assert running(client) == now
        promote(client, new)
        roll_back(client)
        with pytest.raises(NodeConflictError) as raised:
            perform(client, promotion(decision))
        assert "something else was accepted since" in refusal(raised, "decision_used")

    def test_survives_a_kill_and_spends_its_decision(self, fresh: NodeProcess, tmp_path: Path) -> None:
        fresh.restart({"ASHAT_FAULT": "switch.linked"})
        with fresh.client() as client:
            decision = decide(push(client, source(tmp_path)), expected=None, seq=1)
            client.start_operation("killed", promotion(decision))
            fresh.wait_until_dead()
            fresh.start()
            assert client.wait_operation("killed").status == "succeeded"
            assert (running(client).bundle, running(client).release_seq) == (decision.bundle, 1)
            assert client.start_operation("killed", promotion(decision)).status == "succeeded"
            with pytest.raises(NodeConflictError):
                client.start_operation("again", promotion(decision))

    def test_is_the_only_way_and_asks_for_its_scope(self, omega: NodeProcess, client: NodeClient, new: str) -> None:
        now = running(client).bundle
        plain = OperationRequest(action="switch", bundle=new, expected_current=now, update_id="UPD-1", attempt=1)
        with pytest.raises(NodeRefusedError) as raised:
            client.start_operation("plain", plain)
        refusal(raised, "bad_request")
        decision = decide(new, expected=now, seq=client.state().release_seq + 1)
        with omega.client(Scope.PUSH) as pusher, pytest.raises(NodeAuthError):
            pusher.start_operation("pusher", promotion(decision))
        assert running(client).bundle == now


class TestRollback:
    def test_needs_something_before_and_goes_there_only(self, fresh: NodeProcess, tmp_path: Path) -> None:
        with fresh.client() as client:
            first, other = (push(client, source(tmp_path)) for _ in range(2))
            back = OperationRequest(
                action="rollback", bundle=first, expected_current=None, update_id="UPD-1", attempt=1
            )
            with pytest.raises(NodeConflictError) as raised:
                client.start_operation("r1", back)
            refusal(raised, "nothing_before")
            promote(client, first)
            to_nothing = back.model_copy(update={"bundle": None, "expected_current": first})
            with pytest.raises(NodeConflictError) as raised:
                client.start_operation("r2", to_nothing)
            refusal(raised, "nothing_before")

            second = promote(client, push(client, source(tmp_path)), "UPD-2").bundle
            for bundle in (other, second, None):
                wrong = back.model_copy(update={"bundle": bundle, "expected_current": second})
                with pytest.raises(NodeConflictError) as raised:
                    client.start_operation("r3", wrong)
                assert first[:12] in refusal(raised, "decision_missing")
            assert roll_back(client).status == "succeeded"
            current = running(client)
            assert (current.bundle, current.release_seq) == (first, 3)

            forward = back.model_copy(update={"bundle": second, "expected_current": first})
            with pytest.raises(NodeConflictError) as raised:
                client.start_operation("r4", forward)
            refusal(raised, "decision_missing")
            assert promote(client, second, "UPD-2").release_seq == 4


class TestOffer:
    def test_is_what_omega_runs_and_follows_a_rollback(self, client: NodeClient, new: str, tmp_path: Path) -> None:
        first = ship(client, source(tmp_path))
        assert first.release_seq
        offered = Offer.model_validate(first, from_attributes=True)
        assert client.state().offer == offered
        assert client.put_offer(offered) == offered
        for wrong in ({"release_seq": first.release_seq + 1}, {"bundle": new}, {"attempt": 2}, {"update_id": "X"}):
            with pytest.raises(NodeConflictError) as raised:
                client.put_offer(offered.model_copy(update=wrong))
            refusal(raised, "expected_current")
            assert raised.value.body["current"]["bundle"] == first.bundle  # type: ignore[index]

        promote(client, new)
        assert client.state().offer == offered, "a promotion is not offered by itself"
        offer(client)
        roll_back(client)
        back = client.state().offer
        assert back
        assert (back.bundle, back.release_seq) == (first.bundle, first.release_seq + 2)

    def test_needs_the_promote_scope_and_something_that_runs(self, fresh: NodeProcess) -> None:
        anything = Offer(release_seq=1, bundle="a" * 64, update_id="UPD-1", attempt=1)
        with fresh.client(Scope.PROMOTE) as client, pytest.raises(NodeConflictError, match="runs nothing"):
            client.put_offer(anything)
        with fresh.client(Scope.PUSH) as client, pytest.raises(NodeAuthError):
            client.put_offer(anything)


class TestLicences:
    def test_are_kept_renewed_and_revoked_by_an_admin(self, omega: NodeProcess, client: NodeClient) -> None:
        key = new_key()
        past = datetime.now(UTC) - timedelta(days=1)
        assert client.put_licence(LicenceRequest(key=key, name="Mill", expires=past)).status == "expired"
        assert client.put_licence(LicenceRequest(key=key, name="Mill & Co")).status == "active"
        assert revoke_licence(client, licence_id(key)).status == "revoked"
        assert client.put_licence(LicenceRequest(key=key, name="Mill")).status == "revoked"
        with pytest.raises(NodeRefusedError) as raised:
            revoke_licence(client, "0" * 12)
        refusal(raised, "not_found")
        with pytest.raises(NodeRefusedError) as raised:
            client.put_licence(LicenceRequest(key="RACORE-1234", name="Mill"))
        assert "1234" not in refusal(raised, "bad_request")
        with omega.client(Scope.PROMOTE) as promoter, pytest.raises(NodeAuthError):
            promoter.put_licence(LicenceRequest(key=key, name="Mill"))
        assert key not in omega.log()

    def test_are_kept_by_a_scope_of_their_own_all_or_none(self, omega: NodeProcess) -> None:
        keys = [new_key() for _ in range(3)]
        wanted = [LicenceRequest(key=key, name=f"N{n}") for n, key in enumerate(keys)]
        with omega.client(Scope.LICENCES) as keeper:
            for bad in (
                wanted[0],
                LicenceRequest(key="RACORE-1", name="x"),
                LicenceRequest(key=new_key(), name="\u202e"),
            ):
                with pytest.raises(NodeRefusedError) as raised:
                    keeper.put_licences([*wanted, bad])
                assert refusal(raised, "bad_request").startswith("Licence 4")
                assert not {licence_id(key) for key in keys} & {each.id for each in keeper.licences()}
            kept = keeper.put_licences(wanted)
            assert [(each.id, each.new, each.status) for each in kept] == [
                (licence_id(k), True, "active") for k in keys
            ]
            assert not keeper.put_licences(wanted[:1])[0].new
            until = datetime(2031, 1, 1, tzinfo=UTC)
            assert keeper.renew_licence(kept[0].id, until).expires == until
            assert keeper.renew_licence(kept[0].id, None).expires is None
            assert keeper.revoke_licence(kept[0].id).status == "revoked"
            with pytest.raises(NodeConflictError, match="was revoked for good"):
                keeper.renew_licence(kept[0].id, until)
            for ask in (lambda: keeper.renew_licence("0" * 12, None), lambda: keeper.revoke_licence("0" * 12)):
                with pytest.raises(NodeRefusedError, match="no licence"):
                    ask()
            found = {each.id: each for each in keeper.licences()}
            assert found[kept[0].id].revoked_at is not None
        with omega.client(Scope.PROMOTE) as promoter:
            with pytest.raises(NodeAuthError, match="scope 'licences', such as the role 'owner'"):
                promoter.put_licences(wanted)
            with pytest.raises(NodeAuthError):
                promoter.renew_licence(kept[1].id, None)
            assert len(promoter.licences()) >= 3

    @pytest.mark.parametrize(
        ("header", "status", "code"),
        [
            (None, 401, "unauthenticated"),
            ("Licence", 401, "unauthenticated"),
            ("Licence RACORE-00000000-00000000-00000000", 401, "unauthenticated"),
            ("Licence racore-nonsense", 401, "unauthenticated"),
            ("Bearer {admin}", 401, "unauthenticated"),
            ("Licence {expired}", 403, "licence_expired"),
            ("Licence {revoked}", 403, "licence_revoked"),
            ("licence {active}", 204, ""),
        ],
    )
    def test_open_the_mainframe_calls_while_they_count(
        self, omega: NodeProcess, client: NodeClient, header: str | None, status: int, code: str
    ) -> None:
        keys = {
            "admin": omega.token(),
            "active": licence(client),
            "expired": licence(client, expires=datetime.now(UTC) - timedelta(seconds=1)),
            "revoked": licence(client),
        }
        revoke_licence(client, licence_id(keys["revoked"]))
        headers = {"Authorization": header.format(**keys)} if header else {}
        now = running(client)
        body = {"release_seq": now.release_seq, "bundle": now.bundle, "result": "running"}
        answer = httpx.post(f"{omega.url}/v1/mainframe/report", json=body, headers=headers)
        assert answer.status_code == status
        if code:
            assert answer.json()["error"] == code
            assert not any(key in answer.text for key in keys.values())
        for known in (keys["active"], keys["expired"], keys["revoked"]):
            asked = header is not None and "{" in header and known == keys.get(header.split("{")[1][:-1])
            assert (mainframe(client, known).last_seen is not None) == asked

    def test_open_nothing_else(self, omega: NodeProcess, client: NodeClient) -> None:
        headers = {"Authorization": f"Licence {licence(client)}"}
        for path in ("/v1/state", "/v1/mainframes", f"/v1/bundles/{running(client).bundle}", "/v1/tree"):
            assert httpx.get(f"{omega.url}{path}", headers=headers).status_code == 401

    def test_history_is_kept(self, omega: NodeProcess, client: NodeClient) -> None:
        key, now = licence(client), running(client)
        said = {"release_seq": now.release_seq, "bundle": now.bundle}

        def report(**changes: Any) -> int:
            headers = {"Authorization": f"Licence {key}"}
            return httpx.post(f"{omega.url}/v1/mainframe/report", json=said | changes, headers=headers).status_code

        assert report(result="running") == 204
        assert report(result="failed", reason="sick\x1b[2J\nof it") == 204
        assert report(result="failed", reason="sick\x1b[2J\nof it") == 204
        assert report(result="running", bundle="a" * 64) == 404
        assert report(result="running", release_seq=1 << 53) == 404
        assert report(result="running", release_seq=1 << 64) == 400
        found = mainframe(client, key)
        assert (found.release_seq, found.result, found.reason) == (now.release_seq, "failed", r"sick\x1b[2J of it")
        lines = client.transport.json("GET", f"/v1/mainframes/{licence_id(key)}/reports")["reports"]
        assert [(line["result"], line["times"]) for line in lines] == [("failed", 2), ("running", 1)]
        with pytest.raises(NodeRefusedError):
            client.transport.json("GET", "/v1/mainframes/000000000000/reports")


class TestWhatALicenceMayHave:
    @pytest.fixture
    def mainframe(self, omega: NodeProcess, client: NodeClient) -> Iterator[Transport]:
        with Transport(omega.url, licence=licence(client), name="OMEGA") as transport:
            yield transport

    def test_the_offered_bundle_and_no_other(
        self, omega: NodeProcess, client: NodeClient, mainframe: Transport, tmp_path: Path
    ) -> None:
        other = push(client, source(tmp_path, secret="not yours"))
        offered = ship(client, source(tmp_path)).bundle
        prefix = "/v1/mainframe"
        manifest = fetch_manifest(mainframe, offered, prefix=prefix)
        mine = list(manifest.objects)
        assert [digest for digest, _ in fetch_objects(mainframe, mine, prefix=prefix)] == mine
        part = mainframe.request("GET", f"{prefix}/objects/{mine[0]}", headers={"Range": "bytes=1-3"})
        assert (part.status_code, len(part.content), part.headers["etag"]) == (206, 3, f'"{mine[0]}"')

        secret = client.manifest(other).by_path["secret"].sha256
        for method, path, body in (
            ("GET", f"{prefix}/bundles/{other}", None),
            ("GET", f"{prefix}/objects/{secret}", None),
            ("POST", f"{prefix}/objects/fetch", {"digests": [mine[0], secret]}),
        ):
            with pytest.raises(NodeRefusedError) as raised:
                mainframe.request(method, path, json=body)
            assert raised.value.status == 404
            assert (secret if "objects" in path else other) in refusal(raised, "not_found")

    def test_waits_for_another_offer(self, client: NodeClient, mainframe: Transport, new: str, tmp_path: Path) -> None:
        first = ship(client, source(tmp_path))
        path = "/v1/mainframe/release"
        answer = mainframe.request("GET", path)
        assert answer.headers["etag"] == f'"{first.release_seq}"'
        assert Offer.model_validate_json(answer.content).bundle == first.bundle
        assert mainframe.request("GET", path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304

        began = time.monotonic()
        assert mainframe.request("GET", path, params={"after": first.release_seq, "wait": 0.7}).status_code == 304
        assert 0.7 <= time.monotonic() - began < 20
        assert mainframe.request("GET", path, params={"after": 0, "wait": 20}).status_code == 200

        promote(client, new)
        later = threading.Timer(0.5, lambda: offer(client))
        later.start()
        began = time.monotonic()
        answer = mainframe.request("GET", path, params={"after": first.release_seq, "wait": 20})
        assert answer.json()["bundle"] == new
        assert time.monotonic() - began < 25
        later.join()

    def test_a_licence_revoked_while_it_waits_gets_nothing(
        self, omega: NodeProcess, client: NodeClient, new: str
    ) -> None:
        key = licence(client)
        known = client.state().offer
        later = threading.Timer(0.5, lambda: revoke_licence(client, licence_id(key)))
        later.start()
        asked = {"after": known.release_seq if known else 0, "wait": 1.5}
        with Transport(omega.url, licence=key) as transport, pytest.raises(NodeAuthError) as raised:
            transport.request("GET", "/v1/mainframe/release", params=asked)
        refusal(raised, "licence_revoked")
        later.join()

    def test_nobody_who_waits_holds_up_a_stop(self, fresh: NodeProcess) -> None:
        with fresh.client() as client:
            key = licence(client)
        answers: list[int] = []

        def wait() -> None:
            with Transport(fresh.url, licence=key) as transport:
                answer = transport.request("GET", "/v1/mainframe/release", params={"after": 0, "wait": 30})
                answers.append(answer.status_code)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.5)
        began = time.monotonic()
        assert fresh.stop() == 0
        assert time.monotonic() - began < 20
        waiting.join()
        assert answers == [204]


class TestLicenceCommand:
    def run(self, node: NodeProcess, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return ashat_node("licence", *words, "--data", node.data, stdin=stdin)

    def test_works_on_a_running_node(self, omega: NodeProcess, client: NodeClient) -> None:
        made = self.run(omega, "add", "--name", "Mill", "--expires", "2099-12-31")
        key = made.stdout.strip()
        assert made.returncode == 0
        assert key not in made.stderr
        with Transport(omega.url, licence=key) as transport:
            assert transport.request("GET", "/v1/mainframe/release").status_code in (200, 204)
            existing = new_key()
            taken = self.run(omega, "import", stdin=f"{existing},Old Mill,2000-01-01\n")
            assert (taken.returncode, existing in taken.stdout) == (0, False)
            assert mainframe(client, existing).status == "expired"
            assert self.run(omega, "revoke", licence_id(key)).returncode == 0
            with pytest.raises(NodeAuthError):
                transport.request("GET", "/v1/mainframe/release")
        listed = self.run(omega, "list").stdout
        assert any(licence_id(key) in line and "revoked" in line and "Mill" in line for line in listed.splitlines())

    def test_refuses_in_one_line(self, omega: NodeProcess, tmp_path: Path) -> None:
        with NodeProcess(tmp_path / "public", app=tiny_app()) as public:
            wrong_role = self.run(public, "add", "--name", "Mill")
        for refused, word in (
            (wrong_role, "role public"),
            (self.run(omega, "revoke", "123"), "licence list"),
            (self.run(omega, "add", "--name", ""), "name"),
            (self.run(omega, "add", "--name", "Mill", "--expires", "soon"), "no day"),
            (self.run(omega, "import", stdin="RACORE-1,Mill\n"), "Line 1"),
            (self.run(omega, "import"), "There is no licence; give lines"),
        ):
            assert refused.returncode in (1, 2)
            assert refused.stdout == ""
            assert len(refused.stderr.splitlines()) == 1
            assert word in refused.stderr
