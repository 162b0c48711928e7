"""`python -m ashat.cli` is `deploy`."""

from ashat.cli.main import main

main()
