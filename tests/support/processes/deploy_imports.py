"""What `deploy` and each flow run import, by the time that they are used: to be imported before forking."""

# ruff: noqa: F401

import anyio._backends._asyncio
import fastapi.encoders
import prefect._internal.metrics
import prefect.flow_engine
import prefect.task_engine
import prefect.utilities.visualization
import sqlalchemy.dialects.sqlite

import ashat.cli.control_plane.follow
import flows.approve
import flows.cancel
import flows.push
import flows.reconcile
import flows.release
import flows.rollback
import flows.switch
import flows.verify
from ashat.cli.main import commands
from tasks.checks import built_in_checks

built_in_checks()
commands()
