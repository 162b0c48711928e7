"""The retryable steps that the flows are made of.

Each step asks the ledger and the servers what is true now and does only what is not yet done, so that running it again
is always safe.
"""
