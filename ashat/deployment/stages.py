"""Name how far a deployment can be: in a file of its own, so that a command which lists them imports nothing else."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """Name how far a deployment is; also the name of its flow run's final state in Prefect."""

    PLANNING = "Planning"
    PUSHED = "Pushed"
    TESTING = "Testing"
    AWAITING_APPROVAL = "AwaitingApproval"
    AWAITING_WINDOW = "AwaitingWindow"
    DEPLOYING = "DeployingToOmega"
    DISTRIBUTING = "Distributing"
    COMPLETED = "Completed"
    FAILED = "Failed"
    REJECTED = "Rejected"
    EXPIRED = "Expired"
    CANCELLED = "Cancelled"
    ROLLED_BACK = "RolledBack"


BEFORE_APPROVAL = frozenset({Stage.PLANNING, Stage.PUSHED, Stage.TESTING, Stage.AWAITING_APPROVAL})
ENDED = frozenset({Stage.COMPLETED, Stage.FAILED, Stage.REJECTED, Stage.EXPIRED, Stage.CANCELLED, Stage.ROLLED_BACK})
PUT_BACK = frozenset({Stage.REJECTED, Stage.EXPIRED, Stage.CANCELLED, Stage.FAILED})

NO_WAY_BACK = "its migrate step cannot be taken back: a rollback leaves the database as this release made it"
