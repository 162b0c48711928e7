"""Changing what a node runs: the lease, operations and their records, the switch, recovery after a crash."""
