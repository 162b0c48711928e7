"""How much of a file that declares packages is read."""

TEXT_LIMIT = 8 * 1024 * 1024
LINES_LIMIT = 100_000
