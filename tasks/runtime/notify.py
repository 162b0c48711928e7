"""Tell people through Prefect's notification blocks: a channel is added by adding a block, with no code."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from contextvars import copy_context

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block

from ashat.common.text import printable
from ashat.settings import Settings
from tasks.runtime.reporting import reporter

SECONDS = 60.0


def notify(subject: str, body: str) -> None:
    """Send a message to every block that `ASHAT_NOTIFY` names (`slack-webhook/ops,email/owner`).

    A channel that fails is reported and never stops a deployment.
    """
    for name in filter(None, (part.strip() for part in Settings().notify.split(","))):
        try:
            block = Block.load(name)
            if not isinstance(block, NotificationBlock):
                raise TypeError(f"it is a {type(block).__name__}, which cannot notify")
            _within(SECONDS, block, "\n".join(map(printable, body.split("\n"))), printable(subject))
        except Exception as error:  # noqa: BLE001  others' code; the deployment goes on whatever it raises
            reporter().say(f"⚠️ {name} was not notified: {type(error).__name__}: {error}")


def _within(seconds: float, block: NotificationBlock, body: str, subject: str) -> None:
    """Send it, in a thread that is left alone after so many seconds: whoever is told may answer a byte a minute."""
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def send() -> None:
        try:
            sent: object = block.notify(body, subject)
            if inspect.iscoroutine(sent):
                asyncio.run(sent)
        except Exception as error:  # noqa: BLE001  raised below, where the caller is
            ended.put(error)
        else:
            ended.put(None)

    threading.Thread(target=copy_context().run, args=(send,), name="notification", daemon=True).start()
    try:
        error = ended.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"it did not end within {seconds:g} s") from None
    if error is not None:
        raise error
