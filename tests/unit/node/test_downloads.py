"""Who may download from OMEGA at once, and who waits for a turn."""

from __future__ import annotations

import asyncio
import time

import pytest
from fastapi import Response

from ashat.node.core.errors import ApiError
from ashat.node.mainframe.agent import SLOW, Patience
from ashat.node.omega import downloads
from ashat.node.omega.downloads import CONNECTIONS, KEPT, LATEST, SOONEST, Downloads


def refused(those: Downloads, licence: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        those.admit(licence)
    return caught.value


def test_as_many_mainframes_download_as_may_and_each_over_several_connections() -> None:
    those = Downloads(2)
    ends = [those.admit("a") for _ in range(CONNECTIONS)]
    ends.append(those.admit("b"))
    later = refused(those, "c")
    assert (later.status, later.code) == (503, "downloads_full")
    assert refused(those, "a").status == 429
    for end in ends[1:]:
        end()
    assert those.under_way() == 1
    those.admit("b")  # which keeps its turn between two parts
    assert refused(those, "c").status == 503
    ends[0]()
    time.sleep(KEPT + 0.05)
    those.admit("c")
    assert those.under_way() == 2


def test_who_is_turned_away_comes_back_at_different_times() -> None:
    those = Downloads(1)
    those.admit("a")
    told = {int(refused(those, str(number)).headers["Retry-After"]) for number in range(200)}
    assert told == set(range(SOONEST, LATEST + 1))
    assert those.under_way() == 1


def test_an_answer_counts_until_it_is_sent_or_its_connection_is_gone_or_it_was_never_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downloads, "KEPT", 0.0)
    those = Downloads(1)

    async def made() -> Response:
        assert those.under_way() == 1
        return Response(b"bytes")

    async def fails() -> Response:
        raise ApiError(404, "not_found", "gone")

    async def nothing(*_: object) -> None:
        return None

    async def cut(*_: object) -> None:
        raise OSError

    async def answers() -> None:
        for send in (nothing, cut):
            answer = await those.counted("a", made)
            assert refused(those, "b").status == 503
            try:
                await answer({"type": "http"}, nothing, send)  # type: ignore[arg-type]
            except OSError:
                assert send is cut
            assert those.under_way() == 0
        with pytest.raises(ApiError):
            await those.counted("a", fails)
        assert those.under_way() == 0

    asyncio.run(answers())


def test_who_waits_for_a_turn_waits_as_told_and_longer_each_time_and_has_failed_at_nothing() -> None:
    patience = Patience(interval=15)
    pauses = [patience.until_turn(10.0) for _ in range(8)]
    assert all(10 <= pause <= 15 for pause in pauses[:3])
    assert all(SLOW * 15 <= pause <= SLOW * 15 * 1.5 for pause in pauses[5:])
    assert patience.failures == 0
    assert patience.until_turn(86_400) <= SLOW * 15 * 1.5
