"""`python -m ashat.node` is `ashat-node`."""

from __future__ import annotations

from ashat.node.cli.main import main

if __name__ == "__main__":
    main()
