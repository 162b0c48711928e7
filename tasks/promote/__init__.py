"""Promote an approved release to OMEGA, and follow it to the Licensed Mainframes."""
