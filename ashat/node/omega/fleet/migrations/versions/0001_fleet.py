"""Make the fleet's tables.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them, empty but for the numbers that are kept."""
    _licences()
    _mainframes()
    _rollouts()
    _waves()
    op.execute("INSERT INTO fleet (key, value) VALUES ('licences_version', 0), ('rollouts_version', 0), ('outbox', 0)")


def _licences() -> None:
    op.create_table(
        "fleet",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "licences",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.Column("expires", sa.String(length=40), nullable=True),
        sa.Column("revoked_at", sa.String(length=40), nullable=True),
        sa.Column("old_protocol", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key_hash"),
    )
    op.create_index(op.f("ix_licences_version"), "licences", ["version"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )


def _mainframes() -> None:
    op.create_table(
        "labels",
        sa.Column("licence", sa.String(length=12), nullable=False),
        sa.Column("key", sa.String(length=63), nullable=False),
        sa.Column("value", sa.String(length=63), nullable=False),
        sa.ForeignKeyConstraint(["licence"], ["licences.id"], name=op.f("fk_labels_licence")),
        sa.PrimaryKeyConstraint("licence", "key"),
    )
    op.create_index("ix_labels_key_value", "labels", ["key", "value"], unique=False)
    op.create_table(
        "mainframes",
        sa.Column("licence", sa.String(length=12), nullable=False),
        sa.Column("last_seen", sa.String(length=40), nullable=True),
        sa.Column("agent", sa.String(length=64), server_default="", nullable=False),
        sa.Column("release_seq", sa.BigInteger(), nullable=True),
        sa.Column("bundle", sa.String(length=64), nullable=True),
        sa.Column("result", sa.String(length=16), server_default="none", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("reported_at", sa.String(length=40), nullable=True),
        sa.Column("doubt", sa.Text(), server_default="", nullable=False),
        sa.Column("waits", sa.Text(), server_default="", nullable=False),
        sa.Column("output", sa.Text(), server_default="[]", nullable=False),
        sa.Column("old_version", sa.String(length=200), server_default="", nullable=False),
        sa.Column("old_at", sa.String(length=40), nullable=True),
        sa.Column("twin_at", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(["licence"], ["licences.id"], name=op.f("fk_mainframes_licence")),
        sa.PrimaryKeyConstraint("licence"),
    )
    op.create_index(op.f("ix_mainframes_bundle"), "mainframes", ["bundle"], unique=False)
    op.create_index(op.f("ix_mainframes_last_seen"), "mainframes", ["last_seen"], unique=False)
    op.create_table(
        "reports",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("licence", sa.String(length=12), nullable=False),
        sa.Column("release_seq", sa.BigInteger(), nullable=False),
        sa.Column("bundle", sa.String(length=64), nullable=False),
        sa.Column("result", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("first_at", sa.String(length=40), nullable=False),
        sa.Column("last_at", sa.String(length=40), nullable=False),
        sa.Column("times", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["licence"], ["licences.id"], name=op.f("fk_reports_licence")),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("ix_reports_licence_seq", "reports", ["licence", "seq"], unique=False)


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("update_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("release_seq", sa.BigInteger(), nullable=False),
        sa.Column("bundle", sa.String(length=64), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("began_at", sa.String(length=40), nullable=False),
        sa.Column("changed_at", sa.String(length=40), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("stops", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("release_seq"),
    )
    op.create_index(op.f("ix_rollouts_status"), "rollouts", ["status"], unique=False)
    op.create_table(
        "members",
        sa.Column("rollout", sa.String(length=80), nullable=False),
        sa.Column("licence", sa.String(length=12), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("offered_at", sa.String(length=40), nullable=True),
        sa.Column("changed_at", sa.String(length=40), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["licence"], ["licences.id"], name=op.f("fk_members_licence")),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"], name=op.f("fk_members_rollout")),
        sa.PrimaryKeyConstraint("rollout", "licence"),
    )
    op.create_index("ix_members_licence", "members", ["licence"], unique=False)
    op.create_index("ix_members_wave_state", "members", ["rollout", "wave", "state"], unique=False)


def _waves() -> None:
    op.create_table(
        "waves",
        sa.Column("rollout", sa.String(length=80), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("opened_at", sa.String(length=40), nullable=True),
        sa.Column("last_success_at", sa.String(length=40), nullable=True),
        sa.Column("last_answer_at", sa.String(length=40), nullable=True),
        sa.Column("waiting", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("under_way", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("succeeded", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unreachable", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("accepted", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"], name=op.f("fk_waves_rollout")),
        sa.PrimaryKeyConstraint("rollout", "number"),
    )
