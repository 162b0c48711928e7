"""A transparency log (RFC 9162): the tree, checkpoints, who signs them, and witnesses."""
