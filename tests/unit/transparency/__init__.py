"""Tests of transparency."""
