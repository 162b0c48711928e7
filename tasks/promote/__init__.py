"""Promoting an approved release to OMEGA, and following it to the Licensed Mainframes."""
