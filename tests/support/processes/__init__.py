"""Starts processes: nodes, control planes, commands, fork servers."""
