"""What a look at a server says, for each way in which the server, its certificate or its clock may be wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ashat.client.probe import look_at_server
from ashat.common.findings import Finding
from ashat.protocol.messages import Role
from tasks.selftest.faults.certificates import make_identity
from tests.support.fakes.answering_server import a_node, answering
from tests.support.fakes.stranger import saying, stranger


def verdicts(found: Sequence[Finding]) -> dict[str, str]:
    return {finding.what.removeprefix("it, "): finding.verdict for finding in found}


def look(url: str, ca: Path | None = None, role: Role = Role.PUBLIC) -> list[Finding]:
    return list(look_at_server("it", url, role, ca=ca))


ALL_WELL = {"reachable": "ok", "TLS": "ok", "role": "ok", "version": "ok", "clock": "ok"}


@pytest.mark.parametrize(
    ("days", "names", "own_ca", "what", "words"),
    [
        (90, ("127.0.0.1",), True, None, "holds until"),
        (20, ("127.0.0.1",), True, "TLS", "the certificate ends on"),
        (-1, ("127.0.0.1",), True, "reachable", "expired|ended"),
        (90, ("staging.example",), True, "reachable", "mismatch|name"),
        (90, ("127.0.0.1",), False, "reachable", "issuer|authority|self"),
    ],
    ids=["good", "ends soon", "ended", "another's name", "unknown authority"],
)
def test_a_certificate_is_told_apart_by_what_is_wrong_with_it(
    tmp_path: Path, days: int, names: Sequence[str], own_ca: bool, what: str | None, words: str
) -> None:
    ends = datetime.now(UTC) + timedelta(days=days)
    identity = make_identity(tmp_path / "own", names=names, ends=ends)
    other = make_identity(tmp_path / "other")
    with answering(a_node(), tls=identity) as url:
        found = look(url, identity.authority if own_ca else other.authority)
    if what is None:
        assert verdicts(found) == ALL_WELL
    else:
        assert verdicts(found)[what] == ("warning" if what == "TLS" else "wrong")
    if what == "reachable":
        assert verdicts(found)["TLS, role, version, clock"] == "not looked at"
    assert re.search(words, " ".join(finding.seen for finding in found))


def test_who_answers_and_with_which_version_clock_and_store_is_said() -> None:
    with answering(a_node("omega", version="0.0.1", lost=2), date=datetime(2020, 1, 1, tzinfo=UTC)) as url:
        wrong_role = look(url)
        found = look(url, role=Role.OMEGA)
    assert verdicts(wrong_role) == {"role": "wrong"}
    assert verdicts(found) == {**ALL_WELL, "store": "wrong", "version": "warning", "clock": "wrong"}
    assert "0.0.1 there" in next(finding.seen for finding in found if finding.what == "it, version")


def test_what_is_no_server_no_node_or_no_address_is_said_and_the_rest_is_not_looked_at(tmp_path: Path) -> None:
    with answering({}) as url:
        assert verdicts(look(url))["reachable"] == "wrong"
    with stranger(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as url:
        assert verdicts(look(url))["reachable"] == "wrong"
    refused = look("http://127.0.0.1:1")
    assert verdicts(refused) == {"reachable": "wrong", "TLS, role, version, clock": "not looked at"}
    assert refused[0].seen.endswith("(asked at http://127.0.0.1:1)")
    assert verdicts(look("ftp://x y")) == {"address": "wrong", "TLS, role, version, clock": "not looked at"}
    (tmp_path / "ca.pem").write_text("garbage")
    assert verdicts(look("https://127.0.0.1:1", tmp_path / "ca.pem"))["address"] == "wrong"
