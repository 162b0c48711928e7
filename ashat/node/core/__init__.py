"""What every part of a node stands on: its settings, its database, its refusals, its metrics."""
