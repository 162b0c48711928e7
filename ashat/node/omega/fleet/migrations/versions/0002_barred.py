"""Keep with a rollout which releases it cannot be installed on, and why.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the column; rollouts of before have no such releases."""
    op.add_column("rollouts", sa.Column("barred", sa.Text(), server_default="{}", nullable=False))
