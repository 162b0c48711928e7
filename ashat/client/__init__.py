"""The client of a node: how to reach it (`transport`), how bytes move (`transfer`)."""
