"""Helpers without a domain: canonical JSON, durable files, rotated logs, identifiers, fail points."""
