"""Tests of raos toml."""
