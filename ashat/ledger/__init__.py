"""Keep the append-only record of all deployments, on SQLite or PostgreSQL."""
