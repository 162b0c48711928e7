"""OMEGA's fleet: its database and its rollouts, on SQLite and on PostgreSQL."""
