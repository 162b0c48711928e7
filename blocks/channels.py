"""Make the notification block of a channel out of what an operator gives, and keep the list of those that were made.

The list is a variable of Prefect, beside the blocks: every worker and every machine of a team reads the same one, and
it needs neither a restart nor a file on each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.notifications import (
    CustomWebhookNotificationBlock,
    DiscordWebhook,
    MattermostWebhook,
    MicrosoftTeamsWebhook,
    OpsgenieWebhook,
    PagerDutyWebHook,
    SendgridEmail,
    SlackWebhook,
    TwilioSMS,
)
from prefect.types import SecretDict
from prefect.variables import Variable
from pydantic import SecretStr, ValidationError

from ashat.client.environment import is_loopback
from ashat.common.channels import VARIABLE, Channel, added_channels, as_variable
from ashat.errors import UsageError
from blocks.find import delete_block
from blocks.mail import MailServer, Security


class Given(NamedTuple):
    """What an operator gives for a channel: who is told (`to`), as whom (`sender`), by which `account`, and its
    secrets."""

    name: str
    to: tuple[str, ...]
    sender: str
    account: str
    secrets: tuple[str, ...]


class Kind(NamedTuple):
    """A kind of channel: what its secrets are called, which other words it `needs`, and how its block is made."""

    secrets: Callable[[str], tuple[str, ...]]
    needs: frozenset[str]
    takes: frozenset[str]
    make: Callable[[Given], NotificationBlock]


def secrets_of(kind: str, account: str = "") -> tuple[str, ...]:
    """Name the secrets that a channel of that kind has, in the order in which they are asked for."""
    return _kind(kind).secrets(account)


def make_channel(kind: str, given: Given) -> NotificationBlock:
    """Make the block of a channel; nothing is kept.

    Raises:
        UsageError: the kind is unknown, a word is missing or makes no sense for it, or an address is none.
    """
    found = _kind(kind)
    words = {"--to": given.to, "--from": given.sender, "--account": given.account}
    present = {word for word, value in words.items() if value}
    if missing := sorted(found.needs - present):
        raise UsageError(f"A channel of the kind {kind} needs {' and '.join(missing)}.")
    if unknown := sorted(present - found.needs - found.takes):
        raise UsageError(f"A channel of the kind {kind} takes no {' and no '.join(unknown)}.")
    try:
        block = found.make(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"That is no channel of the kind {kind}: {field}: {first['msg']}.") from None
    except (ValueError, TypeError, KeyError) as error:
        # The words of a library may hold the secret that it could not read.
        why = f"its address or key is none ({type(error).__name__})"
        raise UsageError(f"That is no channel of the kind {kind}: {why}.") from None
    client = getattr(block, "_apprise_client", None)
    if client is not None and len(client) == 0:
        raise UsageError(f"That is no channel of the kind {kind}: its address is none of that kind.")
    return block


def save_channel(block: NotificationBlock, name: str, *, escalations_only: bool) -> Channel:
    """Keep the block under that name, in the place of one that was there, and list it; the channel."""
    channel = Channel(f"{block.get_block_type_slug()}/{name}", escalations_only=escalations_only, added=True)
    block.save(name, overwrite=True)
    others = [one for one in added_channels(Variable.get(VARIABLE)) if one.block != channel.block]
    Variable.set(VARIABLE, as_variable([*others, channel]), overwrite=True)
    return channel


def remove_channel(channel: Channel) -> None:
    """Take a channel from the list, and delete its block."""
    others = [one for one in added_channels(Variable.get(VARIABLE)) if one.block != channel.block]
    Variable.set(VARIABLE, as_variable(others), overwrite=True)
    delete_block(channel.block)


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise UsageError(f"There is no channel of the kind {name!r}; there are {', '.join(sorted(KINDS))}.")
    return KINDS[name]


def _webhook(given: Given) -> NotificationBlock:
    (address,) = given.secrets
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise UsageError("The address of a webhook begins with https:// or http://.")
    message = {"subject": "{{subject}}", "body": "{{body}}", "text": "{{subject}}\n{{body}}"}
    return CustomWebhookNotificationBlock(
        name=given.name,
        url="{{address}}",
        json_data=message,
        headers=None,
        cookies=None,
        secrets=SecretDict({"address": address}),
    )


def _discord(given: Given) -> NotificationBlock:
    """Take the address that Discord shows: https://discord.com/api/webhooks/ID/TOKEN."""
    parts = [part for part in urlsplit(given.secrets[0]).path.split("/") if part]
    if len(parts) < 4 or parts[-3] != "webhooks":
        raise ValueError("no such address")
    return DiscordWebhook(webhook_id=SecretStr(parts[-2]), webhook_token=SecretStr(parts[-1]))


def _mattermost(given: Given) -> NotificationBlock:
    """Take the address that Mattermost shows: https://HOST/hooks/TOKEN."""
    parts = urlsplit(given.secrets[0])
    path, found, token = parts.path.rpartition("/hooks/")
    if not found or not parts.hostname or not token:
        raise ValueError("no such address")
    secure = parts.scheme == "https"
    return MattermostWebhook(
        hostname=parts.hostname,
        token=SecretStr(token),
        secure=secure,
        port=parts.port or (443 if secure else 80),
        path=path or None,
        channels=list(given.to) or None,
    )


def _email(given: Given) -> NotificationBlock:
    if not given.account:
        (key,) = given.secrets
        return SendgridEmail(api_key=SecretStr(key), sender_email=given.sender, to_emails=list(given.to))
    security, parts = _mail_account(given.account)
    return MailServer(
        host=parts.hostname or "",
        port=parts.port or {"starttls": 587, "tls": 465}.get(security, 25),
        security=security,
        user=parts.username or "",
        password=SecretStr(given.secrets[0] if given.secrets else ""),
        sender=given.sender,
        recipients=list(given.to),
    )


def _mail_account(account: str) -> tuple[Security, SplitResult]:
    """Read `user@host:port`, by STARTTLS; `smtps://` before it is TLS from the first byte, `smtp://` none, which only
    this machine's own server may be asked without."""
    scheme, found, rest = account.partition("://")
    parts = urlsplit(f"//{rest if found else account}")
    known: dict[str, Security] = {"smtps": "tls", "smtp": "none"}
    security = known.get(scheme) if found else "starttls"
    if security is None or not parts.hostname or parts.password or not _has_port(parts):
        raise UsageError(
            "That is no mail account: give user@host:port, or smtps://user@host:port; its password is asked for."
        )
    if security == "none" and not is_loopback(parts.hostname):
        raise UsageError("By smtp:// the password would cross the network readable: give smtps://, or no scheme.")
    return security, parts


def _has_port(parts: SplitResult) -> bool:
    """Say whether the port is none, or one that there is."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _mail_secrets(account: str) -> tuple[str, ...]:
    if not account:
        return ("API key of SendGrid",)
    return ("password of the mail account",) if _mail_account(account)[1].username else ()


def _one(what: str) -> Callable[[str], tuple[str, ...]]:
    return lambda _: (what,)


_TO, _FROM, _ACCOUNT = "--to", "--from", "--account"
_NONE: frozenset[str] = frozenset()


def _secret(given: Given, place: int = 0) -> SecretStr:
    return SecretStr(given.secrets[place])


def _names(to: Sequence[str]) -> list[str] | None:
    return list(to) or None


KINDS: dict[str, Kind] = {
    "slack": Kind(_one("webhook address"), _NONE, _NONE, lambda given: SlackWebhook(url=_secret(given))),
    "teams": Kind(_one("workflow address"), _NONE, _NONE, lambda given: MicrosoftTeamsWebhook(url=_secret(given))),
    "discord": Kind(_one("webhook address"), _NONE, _NONE, _discord),
    "mattermost": Kind(_one("webhook address"), _NONE, frozenset({_TO}), _mattermost),
    "webhook": Kind(_one("address"), _NONE, _NONE, _webhook),
    "email": Kind(_mail_secrets, frozenset({_TO, _FROM}), frozenset({_ACCOUNT}), _email),
    "sms": Kind(
        _one("auth token of Twilio"),
        frozenset({_TO, _FROM, _ACCOUNT}),
        _NONE,
        lambda given: TwilioSMS(
            account_sid=given.account,
            auth_token=_secret(given),
            from_phone_number=given.sender,
            to_phone_numbers=list(given.to),
        ),
    ),
    "pagerduty": Kind(
        lambda _: ("integration key", "API key"),
        _NONE,
        _NONE,
        lambda given: PagerDutyWebHook(integration_key=_secret(given), api_key=_secret(given, 1)),
    ),
    "opsgenie": Kind(
        _one("API key"),
        _NONE,
        frozenset({_TO}),
        lambda given: OpsgenieWebhook(apikey=_secret(given), target_user=_names(given.to)),
    ),
}
