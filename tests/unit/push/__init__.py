"""Tests of what a push records."""
