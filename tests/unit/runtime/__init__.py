"""Tests of what makes a step."""
