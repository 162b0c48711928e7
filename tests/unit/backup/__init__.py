"""Backups: the file, the copy of a ledger, and what a home or a node puts into one."""
