"""`python -m ashat.cli` is `deploy`."""

from ashat.common.entry import deploy

deploy()
