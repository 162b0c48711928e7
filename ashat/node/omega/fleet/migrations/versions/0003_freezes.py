"""Keep windows and freezes of the fleet, and which release goes all the same.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table, and the reason; nobody is held yet."""
    op.create_table(
        "freezes",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=160), server_default="", nullable=False),
        sa.Column("time", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), server_default="", nullable=False),
        sa.Column("at", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column("rollouts", sa.Column("override", sa.Text(), server_default="", nullable=False))
    op.execute("INSERT INTO fleet (key, value) VALUES ('freezes_version', 0)")
