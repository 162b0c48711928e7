"""The schemas of the ledger, the oldest first."""
