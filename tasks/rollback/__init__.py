"""Letting each server run again what it ran before, and the approval that this may need."""
