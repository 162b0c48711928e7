"""Make Prefect tasks of steps: what is tried again, how long a retry waits, and that nothing is cached.

Only what can pass by itself is tried again (`NodeError.transient`: no connection, 429, 5xx but 507), with back-off and
jitter, never sooner than a server's Retry-After asks. Prefect's cache is off everywhere: a step is idempotent because
it asks the ledger and the servers.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from ashat.errors import NodeError
from ashat.settings import Settings
from tasks.runtime.reporting import reporter

P = ParamSpec("P")
R = TypeVar("R")

RETRY_AFTER_LIMIT = 300.0


def step(name: str, *, description: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a retryable task of the function below; `name` is the verb shown in Prefect."""
    settings = Settings()

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        made: Task[P, R] = task(
            name=name,
            description=description,
            retries=settings.retries,
            retry_delay_seconds=exponential_backoff(settings.retry_delay),
            retry_jitter_factor=0.5,
            retry_condition_fn=may_pass_by_itself,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(heed_retry_after(function, description))
        return made

    return decorate


def heed_retry_after(function: Callable[P, R], description: str = "") -> Callable[P, R]:
    """Have `function` wait as long as a server's Retry-After asks before it raises that server's error, and the
    reporter say what is done, by the beginning of `description`, for as long as it takes."""
    what = re.split(r"[.,:;]", description)[0]

    @functools.wraps(function)
    def waiting(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with reporter().doing(what):
                return function(*args, **kwargs)
        except NodeError as error:
            if error.transient and error.retry_after:
                time.sleep(min(error.retry_after, RETRY_AFTER_LIMIT))
            raise

    return waiting


def may_pass_by_itself(_task: object, _run: TaskRun, state: State[Any]) -> bool:
    """Say whether the failure in `state` is one that time can mend."""
    try:
        state.result()
    except NodeError as error:
        return error.transient
    except Exception:  # noqa: BLE001  any other failure is the task's to raise; here it only is no reason to retry
        return False
    return False
