"""The client of a node: how to reach it (`http`), its calls (`node`), how bytes move (`transfer`)."""
