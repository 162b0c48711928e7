"""`deploy window` and `deploy freeze`: what is said of fleets, whatever the names by which their OMEGA is known."""

from __future__ import annotations

from datetime import UTC, datetime

from ashat.cli.commands.windows import merge_fleets
from ashat.protocol.fleet import Freeze

AT = datetime(2026, 11, 30, tzinfo=UTC)


def freeze(identity: str, at: datetime = AT) -> Freeze:
    return Freeze(kind="freeze", scope="fleet", time="2026-12-20 P2W UTC", id=identity, at=at)


def test_a_fleet_whose_omega_has_two_names_is_listed_once() -> None:
    same, later = [freeze("a")], [freeze("a", AT.replace(second=1))]
    listed = merge_fleets(
        [("omega", "production", same), ("second", "production", list(same)), ("west", "west", later)]
    )
    assert [(each.blocks, each.names) for each in listed] == [
        (["omega", "second"], ["production"]),
        (["west"], ["west"]),
    ]


def test_what_is_not_known_or_empty_is_nobody_else_s() -> None:
    away = "it does not answer"
    listed = merge_fleets([("a", "a", away), ("b", "b", away), ("c", "c", []), ("d", "d", [])])
    assert [each.blocks for each in listed] == [["a"], ["b"], ["c"], ["d"]]
