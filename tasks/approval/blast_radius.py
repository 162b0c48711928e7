"""Show how a release would reach the Mainframes, and how many a bad one would break before it stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ashat.errors import NotConfiguredError, PolicyError
from ashat.rollouts.cohorts import assign, require_members, wave_sizes
from ashat.rollouts.describe import AT_ONCE, FORECAST_COLUMNS, conditions, forecast_rows, planned_waves
from ashat.rollouts.labels import Labels
from ashat.rollouts.policy import RolloutPolicy
from ashat.settings import Settings
from blocks.rollout_policy import DEFAULT, load_rollout_policy
from tasks.runtime.artifacts import escape, markdown_table

_HEADING = "## If it is bad"


def blast_radius(update_id: str, fleet: Mapping[str, Labels]) -> list[str]:
    """Write as Markdown how a release reaches the Mainframes, given by their ids with their labels, under the rollout
    policy that holds, and the forecast."""
    settings = Settings()
    name = settings.rollout_policy
    at_once = RolloutPolicy.all_at_once(round(settings.mainframe_timeout))
    try:
        policy = load_rollout_policy(name, settings.mainframe_timeout)
    except (NotConfiguredError, PolicyError) as error:
        return [_HEADING, "", f"> ⚠️ **Which waves it reaches is not known:** {escape(str(error))}"]
    return write(policy, name or DEFAULT, update_id, fleet, at_once=at_once)


def write(
    policy: RolloutPolicy, name: str, update_id: str, fleet: Mapping[str, Labels], *, at_once: RolloutPolicy
) -> list[str]:
    """Write what holds for a fleet of that size under `policy`, which is called `name`, unless it is `at_once`.

    Which wave a share and a count take is drawn by the rollout's id, which the approval makes: here by the update's,
    so that the sizes are those to come, give or take a few.
    """
    sizes = wave_sizes(policy, assign(policy, update_id, fleet))
    if not fleet:
        return [_HEADING, "", "- There is no Mainframe that it could break."]
    if policy == at_once:
        return [_HEADING, "", f"- {_sentence(AT_ONCE)}", "", *_forecast(policy, sizes)]
    waves = [
        (str(number), escape(wave.name), escape(wave.takes), f"{wave.mainframes or 0:,}")
        for number, wave in enumerate(planned_waves(policy, len(fleet), sizes), 1)
    ]
    return [
        _HEADING,
        "",
        *_empty(policy, sizes),
        f"- The rollout policy {escape(name)} holds",
        *(f"- {sentence}" for sentence in conditions(policy)),
        "",
        *_table(("", "wave", "takes", "Mainframes"), waves),
        "",
        *_forecast(policy, sizes),
    ]


def _empty(policy: RolloutPolicy, sizes: Sequence[int]) -> list[str]:
    """Warn where the rollout could not begin as things stand."""
    try:
        require_members(policy, sizes)
    except PolicyError as error:
        return [f"> ⚠️ **Its rollout cannot begin:** {escape(str(error))}", ""]
    return []


def _forecast(policy: RolloutPolicy, sizes: Sequence[int]) -> list[str]:
    rows = [[escape(cell) for cell in row] for row in forecast_rows(policy, sum(sizes), sizes)]
    return _table(FORECAST_COLUMNS, rows)


def _table(columns: tuple[str, ...], rows: Sequence[Sequence[str]]) -> list[str]:
    return markdown_table(columns, rows).splitlines()


def _sentence(clause: str) -> str:
    return f"{clause[0].upper()}{clause[1:]}."
