"""Run the deployment, one file a flow: push, verify, approve, rollback, cancel, release, reconcile.

Each can be run again from its first line at any time, and does only what is not yet done.
"""
