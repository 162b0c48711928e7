"""The routes of every node, and what each request passes through."""
