"""A node's access log and its change log, and the audit of the latter."""
