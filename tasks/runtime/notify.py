"""Tell people through Prefect's notification blocks: a channel is added by adding a block, with no code."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any
from uuid import UUID

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.utilities.urls import url_for
from prefect.variables import Variable
from pydantic import Secret, SecretStr

from ashat.common.channels import VARIABLE, Channel, channels_of
from ashat.common.text import cut, printable, without_secrets
from ashat.deployment.state_machine import Stage, State
from ashat.errors import AshatError
from ashat.ledger.summaries import CHANNELS
from ashat.settings import Settings
from blocks.mail import MailServer
from tasks.runtime.connections import this_run
from tasks.runtime.in_time import in_time
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, run_id

SECONDS = 20.0
_AT_ONCE = 16
_CHANNEL = "channel"
# Prefect makes a block of a class that is imported; it knows those of its own.
OWN_CHANNELS = (MailServer,)
_WORDS = 200
_URL = re.compile(r"([a-z][a-z0-9+.-]*://)(?:[^\s'\"<>/@]*@)?([^\s'\"<>/?#]*)[^\s'\"<>]*", re.IGNORECASE)


def notify(subject: str, why: str, *, run: str = "", escalation: bool = False) -> None:
    """Send a message to every channel that hears of this: its subject, why it is sent, and the page of the flow run
    `run` (this one, where none is given).

    A channel that fails never stops a deployment: `deploy status` shows it until a message gets through.
    """
    page = url_for("flow-run", obj_id=UUID(shown)) if (shown := run or run_id()) else None
    body = "\n".join(printable(line) for line in (*why.split("\n"), page or "") if line)
    hearing = [channel.block for channel in known_channels() if channel.hears(escalation=escalation)]
    send(hearing, subject, body)


def send(names: Sequence[str], subject: str, body: str) -> dict[str, str]:
    """Send a message by the channels of those names, all at once, and note what became of it; by name why it did not
    get through, or "".

    Nothing is raised, whatever a channel does, and one that hangs holds up no other.
    """
    if not names:
        return {}
    context = copy_context()
    with ThreadPoolExecutor(min(len(names), _AT_ONCE)) as pool:
        told = [pool.submit(context.copy().run, _deliver, name, body, printable(subject)) for name in names]
    found = {name: one.result() for name, one in zip(names, told, strict=True)}
    for name, why in found.items():
        note(name, why, sent=True)
    return found


def _deliver(name: str, body: str, subject: str) -> str:
    block = None
    try:
        block = _load(name)
        _within(SECONDS, block, body, subject)
    except Exception as error:  # noqa: BLE001  others' code; the deployment goes on whatever it raises
        return f"the last message did not get through: {_words(error, block)}"
    return ""


def notify_end(state: State, *, run: str = "") -> None:
    """Tell how a deployment ended, why, and who had decided; the reason of a completed one is what it brings."""
    served = f", {state.reach.words}" if state.stage is Stage.COMPLETED else ""
    how = {"approve": "Approved", "reject": "Rejected"}[state.decision.decision] if state.decision else ""
    by = f"\n{how} by {', '.join(state.deciders) or 'somebody who gave no name'}" if how else ""
    notify(f"{state.update_id}: {state.stage.value}{served}", f"{state.reason or state.description}{by}", run=run)


def known_channels() -> list[Channel]:
    """List the channels: those that `ASHAT_NOTIFY` names, and those that somebody added, which a variable of Prefect
    lists. Where that cannot be read, the first are all."""
    try:
        added = in_time(SECONDS, lambda: Variable.get(VARIABLE), "channels")
    except Exception as error:  # noqa: BLE001  a deployment goes on, whoever hears of it
        reporter().say(f"⚠️ The channels that were added could not be read: {_words(error, None)}")
        added = None
    return channels_of(Settings().notify, added)


def look_at_channels() -> None:
    """Note each channel whose block cannot be loaded, and forget those that are not there any more."""
    known = [channel.block for channel in known_channels()]
    for name in known:
        try:
            _load(name)
        except Exception as error:  # noqa: BLE001  others' code, as above
            note(name, f"no message can be sent: {_words(error, None)}")
    forget_others(known)


def forget_others(known: Sequence[str], kind: str = _CHANNEL) -> None:
    """Forget what was wrong with those of a kind that are not known any more."""
    noted = {kept["server"] for kept in _noted()["troubles"] if kept["kind"] == kind}
    for name in sorted(noted - set(known)):
        forget(name)


def forget(name: str) -> None:
    """Forget what became of the messages by a channel, or to a tracker, that is not there any more."""
    try:
        noted = _noted()
        troubles = [kept for kept in noted["troubles"] if kept["server"] != name]
        last = {channel: kept for channel, kept in noted["last"].items() if channel != name}
        this_run().ledger.put_newest(CHANNELS, {"troubles": troubles, "last": last})
    except AshatError as error:
        reporter().say(f"⚠️ {name}: that it is gone was not kept: {error}")


def _load(name: str) -> NotificationBlock:
    block = Block.load(name)
    if not isinstance(block, NotificationBlock):
        raise TypeError(f"it is a {type(block).__name__}, which cannot notify")
    return block


def _noted() -> dict[str, Any]:
    found = this_run().ledger.newest(CHANNELS) or {}
    return {"troubles": found.get("troubles", []), "last": found.get("last", {})}


def note(name: str, what: str, *, sent: bool = False, kind: str = _CHANNEL) -> None:
    """Keep what is wrong with a channel or a tracker ("": nothing) where `deploy status` reads it, and when a message
    was `sent` last, and whether it got through, where `deploy notify list` and `deploy tracker list` do."""
    if what:
        reporter().say(f"⚠️ {name}: {what}")
    try:
        noted, at = _noted(), now().isoformat(timespec="seconds")
        before = {kept["server"]: kept for kept in noted["troubles"]}
        if not sent and what == before.get(name, {}).get("what", ""):
            return
        since = before[name]["since"] if name in before else at
        one = [{"server": name, "kind": kind, "what": what, "since": since}] if what else []
        others = [kept for kept in before.values() if kept["server"] != name]
        last = {**noted["last"], **({name: {"at": at, "why": what}} if sent else {})}
        this_run().ledger.put_newest(CHANNELS, {"troubles": [*others, *one], "last": last})
    except AshatError as error:
        reporter().say(f"⚠️ {name}: what became of the message was not kept: {error}")


def _words(error: Exception, block: NotificationBlock | None) -> str:
    """Say in a line what a channel raised, without its secrets: those of its block, and of an address all but the
    host."""
    text = getattr(error, "log", "") or str(error)
    for secret in sorted(_secrets(block.model_dump()) if block else (), key=len, reverse=True):
        text = text.replace(secret, "…")
    text = " ".join(without_secrets(_URL.sub(r"\1\2", text)).split())
    why = f"{type(error).__name__}: {text}" if text else f"{type(error).__name__}, which does not say why"
    return cut(printable(f"{why}. Is its address right?"), _WORDS)


def _secrets(found: object, *, hidden: bool = False) -> Iterator[str]:
    """Yield every text that is a secret in what a block holds."""
    if isinstance(found, Secret | SecretStr):
        yield from _secrets(found.get_secret_value(), hidden=True)
    elif isinstance(found, dict):
        for value in found.values():
            yield from _secrets(value, hidden=hidden)
    elif isinstance(found, str) and found and hidden:
        yield found


def _within(seconds: float, block: NotificationBlock, body: str, subject: str) -> None:
    """Send it, in at most so many seconds. Raises what the block raises, which most do only where they are asked to."""

    def send() -> None:
        with block.raise_on_failure():
            sent: object = block.notify(body, subject)
            if inspect.iscoroutine(sent):
                asyncio.run(sent)

    in_time(seconds, send, "notification")
