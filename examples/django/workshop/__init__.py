"""A notice board."""

VERSION = "1.0.0"
