"""The base of every part of a node: its settings, its database, its refusals, its metrics."""
