"""Tell people through Prefect's notification blocks: a channel is added by adding a block, with no code."""

from __future__ import annotations

import asyncio
import inspect

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block

from ashat.common.text import printable
from ashat.settings import Settings
from tasks.runtime.reporting import reporter


def notify(subject: str, body: str) -> None:
    """Send a message to every block that `ASHAT_NOTIFY` names (`slack-webhook/ops,email/owner`).

    A channel that fails is reported and never stops a deployment.
    """
    for name in filter(None, (part.strip() for part in Settings().notify.split(","))):
        try:
            block = Block.load(name)
            if not isinstance(block, NotificationBlock):
                raise TypeError(f"it is a {type(block).__name__}, which cannot notify")
            sent: object = block.notify("\n".join(map(printable, body.split("\n"))), printable(subject))
            if inspect.iscoroutine(sent):
                asyncio.run(sent)
        except Exception as error:  # noqa: BLE001  others' code; the deployment goes on whatever it raises
            reporter().say(f"⚠️ {name} was not notified: {type(error).__name__}: {error}")
