"""Each kind of channel becomes Prefect's block of that kind; what makes no sense is refused without its secret."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ashat.common.channels import MOST, Channel, added_channels, as_variable, channels_of
from ashat.errors import UsageError
from blocks.channels import KINDS, Given, make_channel, secrets_of

SECRET = "abcdefghij1234567890klmn"
SLACK = f"https://hooks.slack.com/services/T1ABC2345/B1ABC2345/{SECRET}"
WORKFLOW = "https://prod-1.westus.logic.azure.com:443/workflows/" + "a" * 32
TEAMS = f"{WORKFLOW}/triggers/manual/paths/invoke?api-version=2016-06-01&sp=%2Ft&sv=1.0&sig={SECRET}"
SID = "AC" + "a" * 32
PHONES = {"sender": "+15551234567", "to": ("+15557654321",), "account": SID}
MAILS = {"sender": "deploy@example.com", "to": ("ops@example.com",)}


def given(*secrets: str, **words: Any) -> Given:
    return Given(**{"name": "releases", "to": (), "sender": "", "account": "", "secrets": secrets, **words})


@pytest.mark.parametrize(
    ("kind", "slug", "words"),
    [
        ("slack", "slack-webhook", given(SLACK)),
        ("teams", "ms-teams-webhook", given(TEAMS)),
        ("discord", "discord-webhook", given(f"https://discord.com/api/webhooks/123456/{SECRET}")),
        ("mattermost", "mattermost-webhook", given(f"https://chat.example.com/hooks/{SECRET}", to=("releases",))),
        ("webhook", "custom-webhook", given(f"https://example.com/{SECRET}")),
        ("email", "sendgrid-email", given(f"SG.{SECRET}.{SECRET}", **MAILS)),
        ("email", "raos-mail-server", given(SECRET, account="deploy@mail.example.com:587", **MAILS)),
        ("email", "raos-mail-server", given(SECRET, account="smtps://deploy@mail.example.com", **MAILS)),
        ("sms", "twilio-sms", given("b" * 32, **PHONES)),
        ("pagerduty", "pager-duty-webhook", given("a" * 32, SECRET)),
        ("opsgenie", "opsgenie-webhook", given("a" * 36)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_kind_is_a_block_of_prefect_that_shows_no_secret(kind: str, slug: str, words: Given) -> None:
    assert len(words.secrets) == len(secrets_of(kind, words.account))
    block = make_channel(kind, words)
    assert block.get_block_type_slug() == slug
    assert not [secret for secret in words.secrets if secret in repr(block)]


def test_every_kind_is_tried() -> None:
    assert set(KINDS) == {
        *("slack", "teams", "discord", "mattermost", "webhook", "email", "sms", "pagerduty", "opsgenie"),
    }


@pytest.mark.parametrize(
    ("kind", "words", "says"),
    [
        ("pigeon", given(SECRET), "There is no channel of the kind 'pigeon'; there are discord, email"),
        ("slack", given(f"https://example.com/{SECRET}"), "its address is none of that kind"),
        ("slack", given(SLACK, sender="me"), "takes no --from"),
        ("teams", given(SECRET), "its address or key is none"),
        ("discord", given(f"https://discord.com/{SECRET}"), "its address or key is none"),
        ("mattermost", given(f"https://chat.example.com/{SECRET}"), "its address or key is none"),
        ("webhook", given(f"ftp://example.com/{SECRET}"), "begins with https:// or http://"),
        ("email", given(SECRET), "needs --from and --to"),
        ("email", given(SECRET, account=f"deploy:{SECRET}@mail.example.com", **MAILS), "no mail account"),
        ("email", given(SECRET, account="deploy@mail.example.com:99999", **MAILS), "no mail account"),
        ("email", given(SECRET, account="gopher://mail.example.com", **MAILS), "no mail account"),
        ("email", given(SECRET, account="smtp://deploy@mail.example.com", **MAILS), "cross the network readable"),
        ("sms", given(SECRET, **{**PHONES, "sender": "1"}), "its address or key is none"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line_without_its_secret(kind: str, words: Given, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        make_channel(kind, words)
    assert says in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_mail_server_of_ones_own_gets_a_mail_of_plain_text() -> None:
    with mail_server() as (port, mails):
        block = make_channel("email", given(account=f"smtp://127.0.0.1:{port}", **MAILS))
        with block.raise_on_failure():
            block.notify("<b>It brings</b> more\nhttp://ui/runs/1", "UPD-1 awaits approval")
    (mail,) = mails
    assert "Subject: UPD-1 awaits approval" in mail
    assert "To: ops@example.com" in mail
    assert 'Content-Type: text/plain; charset="utf-8"' in mail
    assert "<b>It brings</b> more" in mail


@contextmanager
def mail_server() -> Iterator[tuple[int, list[str]]]:
    """A mail server that takes every mail: its port, and what it took."""
    mails: list[str] = []

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 mail\r\n")
            for line in self.rfile:
                word = line[:4].upper()
                self.wfile.write({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(word, b"250 ok\r\n"))
                if word == b"DATA":
                    lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
                    mails.append("\n".join(lines))
                    self.wfile.write(b"250 taken\r\n")
                if word == b"QUIT":
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1], mails
        finally:
            server.shutdown()
            thread.join()


def test_the_list_of_channels_is_bounded_and_survives_what_others_wrote_there() -> None:
    added = [Channel("a/1", added=True), Channel("b/2", escalations_only=True, added=True)]
    assert added_channels(as_variable([*added, Channel("c/3")])) == added
    assert channels_of("c/3, a/1,", as_variable(added)) == [Channel("c/3"), Channel("a/1"), added[1]]
    for odd in (None, 7, [], {"channels": 7}, {"channels": [7, {}, {"block": "no-slash"}]}):
        assert added_channels(odd) == []
    assert len(added_channels({"channels": [{"block": f"a/{n}"} for n in range(10_000)]})) == MOST
