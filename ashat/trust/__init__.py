"""Signed releases: The Update Framework's metadata (https://theupdateframework.github.io/specification/latest/),
whose `production` role the approvers hold, and the client that believes nothing else.

Nothing cryptographic is done here: python-tuf judges signatures, securesystemslib and cryptography make them.
"""
