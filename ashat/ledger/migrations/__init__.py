"""Keep the ledger's schema by Alembic: one file in `versions` a schema; `ashat.ledger.database` runs them."""
