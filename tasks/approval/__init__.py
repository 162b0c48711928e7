"""Asking people: the gate, its page, and their signatures."""
