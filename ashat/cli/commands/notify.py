"""Implement `deploy notify`: by which channels people are told, and whether that gets through."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ashat.cli.control_plane.api import kept_variable
from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.output import Json
from ashat.cli.terminal.secret_input import given_secrets
from ashat.common.channels import VARIABLE, Channel, channels_of
from ashat.common.identifiers import check_server_name
from ashat.errors import ControlPlaneError, NotConfiguredError, UsageError

notify_app = typer.Typer(no_args_is_help=True, help="Say by which channels people are told.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The channel's name.")]


@notify_app.command("add", short_help="Add a channel, or change it.")
def add(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="slack, teams, discord, mattermost, email, sms, pagerduty, opsgenie or webhook."
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of your own, such as releases.")],
    to: Annotated[list[str] | None, typer.Option("--to", help="Who is told: an address, a number; repeat it.")] = None,
    sender: Annotated[str, typer.Option("--from", help="The address or number that messages come from.")] = "",
    account: Annotated[
        str,
        typer.Option(help="sms: the account SID of Twilio. email: user@host:port of a mail server; without, SendGrid."),
    ] = "",
    secrets: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with the secrets, one a line; - is standard input.")
    ] = None,
    escalations_only: Annotated[
        bool, typer.Option("--escalations-only", help="Tell it only of what nobody answers and what ends soon.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Add a channel by which people are told, at once and without a restart. Its secrets, such as the address of a
    webhook, are asked for, or read from a file; never give them as words of the command."""
    check_server_name(name)
    ready(dry_run=dry_run)

    from blocks.channels import Given, make_channel, save_channel, secrets_of

    given = given_secrets(secrets, secrets_of(kind, account))
    block = make_channel(kind, Given(name, tuple(to or ()), sender, account, given))
    if dry_run:
        told = "escalations only" if escalations_only else "everything"
        would(f"tell the channel {name} ({kind}) of {told}", "Whether it would get through was not looked at.")
        return
    channel = save_channel(block, name, escalations_only=escalations_only)
    output.say(f"✅ {channel.block} is told of {_hears(channel)} from now on.")
    output.say(f"Whether it gets through: deploy notify test {name}")


@notify_app.command("list", short_help="Each channel, and whether its last message got through.")
def list_channels(as_json: Json = False) -> None:
    """List each channel, what it is told of, and whether the last message by it got through."""
    from ashat.ledger.summaries import last_messages

    channels, last = _known(), last_messages()
    if as_json:
        shown = [
            {
                "channel": channel.block,
                "hears": "escalations" if channel.escalations_only else "everything",
                "named_by": "deploy notify" if channel.added else "ASHAT_NOTIFY",
                "last_at": last.get(channel.block, {}).get("at"),
                "last_got_through": not last[channel.block]["why"] if channel.block in last else None,
                "why": last.get(channel.block, {}).get("why") or None,
            }
            for channel in channels
        ]
        output.show_json({"channels": shown})
        return
    output.say("📣 Channels")
    if not channels:
        output.say("  Nobody is told. Add one: deploy notify add slack releases")
    for line in output.columns(_row(channel, last.get(channel.block)) for channel in channels):
        output.say(line)


@notify_app.command("test", short_help="Send a message by a channel.")
def test(name: Name) -> None:
    """Send a message by a channel from this machine, and say what became of it."""
    channel = _find(name)
    ready()

    from tasks.runtime.connections import connections
    from tasks.runtime.notify import send

    with connections():
        why = send([channel.block], "A test of ASHAT Deploy", "This channel is told of deployments.")[channel.block]
    if why:
        raise ControlPlaneError(f"{channel.block}: {why}")
    output.say(f"✅ {channel.block} took a message. Look whether it arrived.")


@notify_app.command("remove", short_help="Remove a channel, with its secrets.")
def remove(name: Name, dry_run: DryRun = False) -> None:
    """Remove a channel: nobody is told by it any more, and its block, which holds its secrets, is deleted."""
    channel = _find(name)
    if not channel.added:
        raise UsageError(f"ASHAT_NOTIFY names {channel.block}: take it out there, then deploy down and deploy up.")
    if dry_run:
        would(f"remove {channel.block} with its secrets; it is told of {_hears(channel)} now")
        return
    ready()

    from blocks.channels import remove_channel
    from tasks.runtime.connections import connections
    from tasks.runtime.notify import forget

    remove_channel(channel)
    with connections():
        forget(channel.block)
    output.say(f"✅ {channel.block} is removed.")


def _known() -> list[Channel]:
    """List every channel.

    Raises:
        ControlPlaneError: the control plane, which keeps them, does not run or does not answer.
    """
    found = kept_variable(VARIABLE, "channels")
    return channels_of(os.environ.get("ASHAT_NOTIFY", ""), found)


def _find(name: str) -> Channel:
    """Find a channel by its name, or by its type and name.

    Raises:
        NotConfiguredError: there is none, or more than one.
    """
    found = [channel for channel in _known() if name in (channel.block, channel.block.partition("/")[2])]
    if not found:
        raise NotConfiguredError(f"There is no channel {name!r}: deploy notify list shows those that there are.")
    if len(found) > 1:
        raise NotConfiguredError(f"Which one? {' or '.join(channel.block for channel in found)}")
    return found[0]


def _hears(channel: Channel) -> str:
    return "escalations" if channel.escalations_only else "everything"


def _row(channel: Channel, last: dict[str, str] | None) -> tuple[str, ...]:
    from datetime import datetime

    mark, what = "❔", "no message was sent yet"
    if last is not None:
        ago = output.span(output.now() - datetime.fromisoformat(last["at"]))
        mark = "❌" if last["why"] else "✅"
        what = f"{ago} ago: {last['why']}" if last["why"] else f"the last message got through, {ago} ago"
    return mark, channel.block, _hears(channel), "" if channel.added else "ASHAT_NOTIFY", what
