"""`python -m ashat.node` is `ashat-node`."""

from __future__ import annotations

from ashat.common.entry import ashat_node

if __name__ == "__main__":
    ashat_node()
