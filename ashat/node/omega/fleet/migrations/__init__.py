"""The fleet's database, version by version (Alembic)."""
