"""A release's contract, `raos.toml`: its schema, its reader, and what one loosens against another."""
