"""Put each Mainframe into exactly one wave, from the policy, the labels and the rollout's id alone.

The waves are gone through in the policy's order, and the first that takes a Mainframe has it:

- *label* takes who has that label.
- *percent* takes who has a `rank` in the wave's share of all ranks. The shares lie one after the other in the order of
  the percent waves, so "10 %, then 20 %" are the lowest tenth of ranks and the fifth above it. A share is of the whole
  fleet; of these, who is in an earlier wave is not taken again.
- *count* takes those of the lowest ranks among all who are left, no more than its number.
- *rest* takes all who are left.

Label, percent and rest look at the Mainframe alone, so nobody else's coming or going moves it between such waves.
Only the members of count waves depend on who was there, so they are fixed when the rollout starts, and a Mainframe
that comes later (`place`) is in none of them: it is where it would be if the count waves were not there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from ashat.errors import PolicyError
from ashat.rollouts.labels import Labels, matches
from ashat.rollouts.policy import RolloutPolicy, WaveRule

RANKS = 1 << 63


def rank(rollout_id: str, mainframe_id: str) -> int:
    """Return the place of a Mainframe in a rollout: from 0 to below 2^63, evenly spread, the same on any machine.

    It is the first 63 bits of the sha256 of `<rollout id's length in bytes>:<rollout id><Mainframe's id>` in UTF-8.
    """
    rollout = rollout_id.encode()
    digest = sha256(b"%d:%b%b" % (len(rollout), rollout, mainframe_id.encode())).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def assign(policy: RolloutPolicy, rollout_id: str, members: Mapping[str, Labels]) -> dict[str, int]:
    """Return the index of the wave of each of `members`, who are the fleet's ids with their labels, at the start."""
    rules = policy.rules()
    shares = _shares(rules)
    left = {name: rank(rollout_id, name) for name in members}
    found: dict[str, int] = {}
    for index, rule in enumerate(rules):
        if rule.count is not None:
            taken: Iterable[str] = heapq.nsmallest(rule.count, left, key=lambda name: (left[name], name))
        else:
            taken = [name for name in left if _takes(rule, shares[index], left[name], members[name])]
        for name in taken:
            found[name] = index
            del left[name]
    return found


def place(policy: RolloutPolicy, rollout_id: str, mainframe_id: str, labels: Labels) -> int:
    """Return the index of the wave of a Mainframe that came after the start: never a wave by count."""
    rules = policy.rules()
    own, shares = rank(rollout_id, mainframe_id), _shares(rules)
    return next(
        index for index, rule in enumerate(rules) if rule.count is None and _takes(rule, shares[index], own, labels)
    )


def wave_sizes(policy: RolloutPolicy, assigned: Mapping[str, int]) -> list[int]:
    """Count the members of each wave, in order."""
    sizes = [0] * len(policy.rules())
    for index in assigned.values():
        sizes[index] += 1
    return sizes


def expected_sizes(policy: RolloutPolicy, fleet: int) -> list[int]:
    """Estimate the size of each wave from the size of the fleet alone: nobody is counted to have a label."""
    left, sizes = fleet, []
    for rule in policy.rules():
        if rule.rest:
            size = left
        elif rule.count is not None:
            size = min(rule.count, left)
        else:
            size = min(left, round(fleet * (rule.percent or 0) / 100))
        sizes.append(size)
        left -= size
    return sizes


def require_members(policy: RolloutPolicy, sizes: Sequence[int]) -> None:
    """Refuse to start a rollout with a wave that nobody is in.

    A wave by percent may be empty in a small fleet, by the ranks' chance, and those of a sequential test are as many
    as are needed: such waves are passed over. A policy of one wave starts on an empty fleet, too.

    Raises:
        PolicyError: a wave is empty; one line that names it and says why.
    """
    rules, fleet = policy.rules(), sum(sizes)
    if policy.waves == "sequential" or len(rules) == 1:
        return
    if not fleet:
        raise PolicyError("There are no Mainframes, so no wave has a member. Ship it with one wave: rest = true.")
    for rule, size in zip(rules, sizes, strict=True):
        if size or rule.percent is not None:
            continue
        why = (
            f"no Mainframe that is left has the label {rule.label}"
            if rule.label is not None
            else f"earlier waves take the whole fleet of {fleet}"
        )
        raise PolicyError(f"The wave '{rule.name}' would be empty: {why}. Change the policy's waves, or the labels.")


def _takes(rule: WaveRule, share: tuple[int, int], own: int, labels: Labels) -> bool:
    """Tell whether a wave, not by count, takes a Mainframe of that rank and those labels."""
    if rule.label is not None:
        return matches(labels, rule.label)
    return rule.rest or share[0] * RANKS <= own * 100 < share[1] * RANKS


def _shares(rules: Sequence[WaveRule]) -> list[tuple[int, int]]:
    """Return from which percent to which each wave's share of the ranks goes; an empty one for other waves."""
    found, start = [], 0
    for rule in rules:
        end = start + (rule.percent or 0)
        found.append((start, end))
        start = end
    return found
