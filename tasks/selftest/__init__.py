"""Proves that each check catches what it claims to: the real checks run on releases that are bad on purpose."""
