"""The schedules of prefect.yaml are planned by the versions of Prefect and its libraries that are installed here."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from prefect.server.schemas.schedules import CronSchedule

ROOT = Path(__file__).resolve().parents[3]
DECLARED = [
    schedule
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for schedule in deployment.get("schedules", [])
    if "cron" in schedule
]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("cron", [schedule["cron"] for schedule in DECLARED])
def test_a_cron_schedule_is_planned(cron: str, zone: str) -> None:
    start = datetime(2026, 11, 28, tzinfo=UTC)  # a Saturday
    (first,) = asyncio.run(CronSchedule(cron=cron, timezone=zone).get_dates(1, start=start))
    hour = {"UTC": 2, "Europe/Berlin": 1}[zone]
    assert first.astimezone(UTC) == datetime(2026, 11, 30, hour, tzinfo=UTC)
