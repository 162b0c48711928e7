"""Tests of rollback."""
