"""The commands of `ashat-node`."""
