"""Keep with a rollout which releases it cannot be installed on, and why; with a wave why it was opened.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the columns; rollouts of before have no such releases, and waves of before no reason."""
    op.add_column("rollouts", sa.Column("barred", sa.Text(), server_default="{}", nullable=False))
    op.add_column("waves", sa.Column("why", sa.Text(), server_default="", nullable=False))
