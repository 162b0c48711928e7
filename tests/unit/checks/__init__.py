"""What checks are made of, without a server."""
