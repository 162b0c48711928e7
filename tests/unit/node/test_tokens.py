"""Tokens of a node: made, listed, rotated with an overlap, ended; and never shown again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ashat.errors import UsageError
from ashat.node.access.tokens import SCOPES, TokenFile
from ashat.node.core.db import Database, now
from ashat.protocol.messages import Role, Scope, TokenRole
from tests.support.processes.node_cli import Run


def test_a_rotated_token_opens_beside_the_new_one_for_the_overlap(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    first, secret = tokens.add("alpha", [Scope.READ, Scope.PUSH])
    kept, new, other = tokens.rotate(first.id, timedelta(hours=1))
    assert (new.name, new.scopes, new.expires) == (first.name, first.scopes, None)
    assert new.id != first.id
    old, found = tokens.identify(secret), tokens.identify(other)
    assert (old, found) == (kept, new)
    assert old is not None
    assert old.expires is not None
    assert not old.expired(now())
    assert not old.expired(old.expires - timedelta(microseconds=1))
    assert old.expired(old.expires)


def test_a_rotation_never_makes_the_old_token_live_longer_and_gives_the_new_one_as_long_a_life(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    first, _ = tokens.add("", [Scope.READ], expires=now() + timedelta(days=1))
    kept, new, _ = tokens.rotate(first.id, timedelta(days=30))
    assert kept.expires == first.expires
    assert first.expires is not None
    assert new.expires is not None
    assert new.expires - new.created == first.expires - first.created
    ended, _, _ = tokens.rotate(new.id, timedelta(0))
    assert ended.expired(now())
    with pytest.raises(UsageError, match=f"The token {new.id} has expired"):
        tokens.rotate(new.id, timedelta(0))
    with pytest.raises(UsageError, match="There is no token 'other'"):
        tokens.rotate("other", timedelta(0))
    with pytest.raises(UsageError, match="would open nothing"):
        tokens.add("", [Scope.READ], expires=now() - timedelta(seconds=1))


def test_tokens_from_before_they_had_an_end_are_read(tmp_path: Path) -> None:
    token, secret = TokenFile(tmp_path / "tokens.json").add("alpha", [Scope.PUSH])
    document = json.loads((tmp_path / "tokens.json").read_text())
    del document["tokens"][0]["expires"]
    (tmp_path / "tokens.json").write_text(json.dumps(document))
    assert TokenFile(tmp_path / "tokens.json").identify(secret) == token


@pytest.mark.parametrize("duty", TokenRole)
@pytest.mark.parametrize("role", Role)
def test_a_role_is_the_scopes_that_it_takes_on_that_kind_of_node(
    run: Run, tmp_path: Path, role: Role, duty: TokenRole
) -> None:
    known = Database(tmp_path / "node.db")
    known.set_meta("role", role)
    known.close()
    code, secret, _ = run("token", "add", "--role", duty, "--data", tmp_path)
    assert code == 0
    token = TokenFile(tmp_path / "tokens.json").identify(secret.strip())
    assert token is not None
    assert token.scopes == SCOPES[duty][role]


def test_the_command_rotates_and_lists_ends_and_shows_no_secret(run: Run, tmp_path: Path) -> None:
    code, secret, told = run("token", "add", "--scope", "push", "--data", tmp_path, "--expires", "2099-12-31")
    assert (code, "until 2100-01-01 00:00Z" in told) == (0, True)
    first = TokenFile(tmp_path / "tokens.json").all()[0]
    assert first.expires == datetime(2100, 1, 1, tzinfo=UTC)
    code, other, told = run("token", "rotate", first.id, "--overlap", "0", "--data", tmp_path)
    assert code == 0
    assert f"Token {first.id} opens expired" not in told
    assert f"Token {first.id} opens nothing any more" in told
    new = TokenFile(tmp_path / "tokens.json").identify(other.strip())
    assert new is not None
    _, listed, _ = run("token", "list", "--data", tmp_path)
    assert [line.split()[0] for line in listed.splitlines()] == [first.id, new.id]
    assert "expired" in listed.splitlines()[0]
    _, as_json, _ = run("token", "list", "--data", tmp_path, "--json")
    assert [found["id"] for found in json.loads(as_json)] == [first.id, new.id]
    for text in (listed, as_json):
        assert secret.strip() not in text
        assert first.sha256 not in text


def test_mistakes_are_one_line(run: Run, tmp_path: Path) -> None:
    for words, told in [
        (("add",), "Say what the token may do"),
        (("add", "--scope", "read", "--role", "dev"), "and not with both"),
        (("add", "--role", "dev"), "What kind of node has"),
        (("add", "--role", "boss"), "Invalid value for '--role'"),
        (("add", "--scope", "read", "--expires", "2001-01-01"), "would open nothing"),
        (("add", "--scope", "read", "--expires", "soon"), "is no day and no time"),
        (("add", "--scope", "read", "--name", "a\nb"), "printable characters"),
        (("rotate", "1f2e3d4c"), "There is no token '1f2e3d4c'"),
        (("rotate", "1f2e3d4c", "--overlap", "-1"), "Invalid value for '--overlap'"),
    ]:
        code, out, err = run("token", *words, "--data", tmp_path)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert told in err
    assert not (tmp_path / "tokens.json").exists()
