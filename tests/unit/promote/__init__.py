"""Tests of promote."""
