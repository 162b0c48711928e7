"""The tables of the fleet's database, for SQLite and PostgreSQL; `migrations/` makes them.

Times are text as `ashat.node.core.db.to_text` writes them, so that they sort alike in both.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s"}
)
_ID = sa.String(12)
_TIME = sa.String(40)
_DIGEST = sa.String(64)
_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _licence_key() -> sa.Column[str]:
    return sa.Column("licence", _ID, sa.ForeignKey("licences.id"), primary_key=True)


facts = sa.Table(
    "fleet",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
"""Numbers that are kept: `licences_version` rises with each change of a licence, `rollouts_version` with each decision
about a rollout, `freezes_version` with each change of a freeze, and `outbox` with each entry there. `freezes_looked`,
where there is one, is the second in which it was last worked out whom the freezes hold."""

licences = sa.Table(
    "licences",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("key_hash", _DIGEST, nullable=False, unique=True),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("expires", _TIME),
    sa.Column("revoked_at", _TIME),
    sa.Column("old_protocol", sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false()),
    sa.Column("version", sa.BigInteger, nullable=False, index=True),
)
"""`version` is the number of the last change of a licence, so that who remembers some can forget those that changed."""

mainframes = sa.Table(
    "mainframes",
    metadata,
    _licence_key(),
    sa.Column("last_seen", _TIME, index=True),
    sa.Column("agent", sa.String(64), nullable=False, server_default=""),
    sa.Column("release_seq", sa.BigInteger),
    sa.Column("bundle", _DIGEST, index=True),
    sa.Column("result", sa.String(16), nullable=False, server_default="none"),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("reported_at", _TIME),
    sa.Column("doubt", sa.Text, nullable=False, server_default=""),
    sa.Column("waits", sa.Text, nullable=False, server_default=""),
    sa.Column("output", sa.Text, nullable=False, server_default="[]"),
    sa.Column("old_version", sa.String(200), nullable=False, server_default=""),
    sa.Column("old_at", _TIME),
    sa.Column("twin_at", _TIME),
)
"""One row a licence: what its Mainframe said last. `twin_at` is when two machines were last seen with the licence."""

labels = sa.Table(
    "labels",
    metadata,
    _licence_key(),
    sa.Column("key", sa.String(63), primary_key=True),
    sa.Column("value", sa.String(63), nullable=False),
    sa.Index("ix_labels_key_value", "key", "value"),
)
reports = sa.Table(
    "reports",
    metadata,
    sa.Column("seq", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("licence", _ID, sa.ForeignKey("licences.id"), nullable=False),
    sa.Column("release_seq", sa.BigInteger, nullable=False),
    sa.Column("bundle", _DIGEST, nullable=False),
    sa.Column("result", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("first_at", _TIME, nullable=False),
    sa.Column("last_at", _TIME, nullable=False),
    sa.Column("times", sa.Integer, nullable=False, server_default="1"),
    sa.Index("ix_reports_licence_seq", "licence", "seq"),
)
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
)
"""What the change log has to say of the fleet, in the order in which it happened."""

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("update_id", sa.String(64), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("release_seq", sa.BigInteger, nullable=False, unique=True),
    sa.Column("bundle", _DIGEST, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("why", sa.Text, nullable=False, server_default=""),
    sa.Column("began_at", _TIME, nullable=False),
    sa.Column("changed_at", _TIME, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("stops", sa.Integer, nullable=False, server_default="0"),
    sa.Column("barred", sa.Text, nullable=False, server_default="{}"),
    sa.Column("override", sa.Text, nullable=False, server_default=""),
)
"""`version` rises with each change, of a wave or of a decision, so that whoever waits for one sees it. `barred` is
JSON: the bundles on which its release cannot be installed, each with the reason. `override` says why no freeze holds it
back."""

waves = sa.Table(
    "waves",
    metadata,
    sa.Column("rollout", sa.String(80), sa.ForeignKey("rollouts.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("opened_at", _TIME),
    sa.Column("last_success_at", _TIME),
    sa.Column("last_answer_at", _TIME),
    sa.Column("waiting", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("under_way", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("succeeded", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("unreachable", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("accepted", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("why", sa.Text, nullable=False, server_default=""),
)
"""A wave with its counters, which every change of a member's state keeps: nobody counts members anew."""

members = sa.Table(
    "members",
    metadata,
    sa.Column("rollout", sa.String(80), sa.ForeignKey("rollouts.id"), primary_key=True),
    sa.Column("licence", _ID, sa.ForeignKey("licences.id"), primary_key=True),
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("offered_at", _TIME),
    sa.Column("changed_at", _TIME, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Index("ix_members_wave_state", "rollout", "wave", "state"),
    sa.Index("ix_members_licence", "licence"),
)
"""One row a Mainframe and rollout: its wave, and how far it is."""

freezes = sa.Table(
    "freezes",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("scope", sa.String(16), nullable=False),
    sa.Column("subject", sa.String(160), nullable=False, server_default=""),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False, server_default=""),
    sa.Column("at", _TIME, nullable=False),
)
"""Windows and freezes: `scope` is fleet, label or mainframe, and `subject` the label `key=value`, or the licence."""
