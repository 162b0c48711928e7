"""The checks against the sample program and its seeded faults."""
