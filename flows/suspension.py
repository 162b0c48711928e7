"""What a run that suspended finds when it is resumed: it starts again from its first line."""

from __future__ import annotations

from prefect.context import FlowRunContext


def brought() -> frozenset[str]:
    """The keys of the askings that this run suspended for and was resumed from; a Retry forgets them.

    `empirical_policy.resuming` cannot be asked: the engine reads the run anew once it is Running, which clears it.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return frozenset((run.empirical_policy.pause_keys if run and run.empirical_policy else None) or ())
