"""Whom the program runs as: what is no such user is refused in a line, and little of our environment goes there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from ashat.errors import UsageError
from ashat.node.app_process.user import ProgramUser, program_user
from ashat.node.core.config import AppConfig, NodeConfig
from ashat.protocol.messages import Role


def config(tmp_path: Path, user: str) -> NodeConfig:
    return NodeConfig(role=Role.PUBLIC, data=tmp_path, app=AppConfig(command=["x"], user=user))


def test_without_a_user_there_is_none(tmp_path: Path) -> None:
    assert program_user(config(tmp_path, "")) is None


@pytest.mark.parametrize(
    ("user", "node", "words"),
    [
        ("no-such-user", 0, "there is no user 'no-such-user' here"),
        ("nobody", 1000, "only a node that root starts can run the program as 'nobody', and this one runs as '"),
        ("root", 1000, "only a node that root starts can run the program as 'root'"),
        ("root", 0, "'root' is the node's own user"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str, node: int, words: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: node)
    with pytest.raises(UsageError) as refused:
        program_user(config(tmp_path, user))
    assert str(refused.value).startswith(f"app.user: {words}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("user", ["../root", "a\nb", "a b", "a:b", "\u202e", "raos\n"])
def test_what_can_be_no_name_is_refused(user: str) -> None:
    with pytest.raises(ValidationError):
        AppConfig(command=["x"], user=user)


def test_the_program_gets_a_list_of_the_nodes_environment_and_its_own_home() -> None:
    user = ProgramUser("raos", 990, 991, (991,), "/srv/raos", 0o022)
    inherited = {"PATH": "/bin", "LC_ALL": "C", "TZ": "UTC", "PGPASSWORD": "x", "HOME": "/root", "NOTIFY_SOCKET": "y"}
    assert user.environment(inherited) == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "TZ": "UTC",
        "HOME": "/srv/raos",
        "USER": "raos",
        "LOGNAME": "raos",
    }
