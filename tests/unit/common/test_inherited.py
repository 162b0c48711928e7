"""What our processes inherit: variables on a list."""

from __future__ import annotations

import os

import pytest

from ashat.common.inherited import inherited, never_travels

KEPT = {
    "PATH": "/bin",
    "HOME": "/home/kim",
    "LC_ALL": "C.UTF-8",
    "SSL_CERT_FILE": "/etc/ca.pem",
    "https_proxy": "http://proxy:3128",
    "SSH_AUTH_SOCK": "/run/agent",
    "GIT_SSH_COMMAND": "ssh -i key",
}
LEFT = [
    "ASHAT_KEY_PASSPHRASE",
    "ASHAT_OMEGA_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "PYTHONSTARTUP",
    "GIT_DIR",
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)


def test_what_is_on_the_list_is_inherited_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (KEPT | dict.fromkeys(LEFT, "x")).items():
        monkeypatch.setenv(name, value)
    assert inherited() == KEPT
    assert inherited({"GITHUB_TOKEN", "NOT_SET"}) == KEPT | {"GITHUB_TOKEN": "x"}


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/opt/lib", {"PYTHONPATH": "/opt/lib"}),
        (".:/opt/lib::lib:/srv", {"PYTHONPATH": "/opt/lib:/srv"}),
        (".", {}),
        ("", {}),
    ],
)
def test_a_path_that_depends_on_where_one_stands_is_not_inherited(
    monkeypatch: pytest.MonkeyPatch, path: str, kept: dict[str, str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", path)
    assert inherited() == kept


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("ASHAT_KEY_PASSPHRASE", True),
        ("ASHAT_TOKEN", True),
        ("ASHAT_OMEGA_EU_TOKEN", True),
        ("ASHAT_HOME", False),
        ("GITHUB_TOKEN", False),
    ],
)
def test_tokens_and_passphrases_of_ours_never_travel(name: str, secret: bool) -> None:
    assert never_travels(name) is secret
