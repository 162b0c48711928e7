"""Verifying a release on Public: running the checks, judging them, and writing the evidence."""
