"""Packing a source, and sending to Public what it lacks."""
