"""What leaks under bursts of requests, and what a garbage collector takes back late, on made-up counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ashat.protocol.probes import ProcessProbe
from tasks.checks.watch.growth import BURSTS, MIB, REQUESTS, Bursts, confirming

Program = Callable[[int], ProcessProbe]


def counted(program: Program) -> Bursts:
    """The counts of a program after each burst, as `measure_bursts` takes them: `program` tells them by the requests
    so far."""
    bursts, asked = Bursts(), 0
    factors: list[int] = [1] * (1 + BURSTS)
    while factors:
        requests = factors.pop() * REQUESTS
        asked += requests
        bursts.counts.append(program(asked))
        bursts.requests.append(requests)
        if not factors and (factor := confirming(bursts)):
            factors = [factor]
    return bursts


def holding(memory: Callable[[int], int], **counts: int) -> Program:
    return lambda asked: ProcessProbe(
        memory_bytes=memory(asked), **{name: per_hundred * asked // 100 for name, per_hundred in counts.items()}
    )


@pytest.mark.parametrize("end", [1000, 3000, 4500])
@pytest.mark.parametrize("kib", [12, 35])
def test_a_heap_that_grows_until_its_collector_begins_is_no_leak(end: int, kib: int) -> None:
    bursts = counted(holding(lambda asked: 55 * MIB + kib * 1024 * min(asked, end)))
    assert not bursts.leaking()


@pytest.mark.parametrize("kib", [15, 35, 400])
def test_memory_that_nobody_takes_back_is_a_leak(kib: int) -> None:
    bursts = counted(holding(lambda asked: 55 * MIB + kib * 1024 * asked))
    assert [each.field for each in bursts.leaking()] == ["memory_bytes"]
    assert bursts.counts[-1].memory_bytes < 1800 * MIB


def test_what_cannot_be_collected_is_asked_for_no_longer_than_need_be() -> None:
    bursts = counted(holding(lambda asked: 55 * MIB + 20 * 1024 * asked, threads=500))
    assert {each.field for each in bursts.leaking()} == {"threads", "memory_bytes"}
    assert sum(bursts.requests) == 10 * REQUESTS
