"""Verify a release on Public: run the checks, judge their results, and write the evidence."""
