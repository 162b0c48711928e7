"""The house and its documents."""
