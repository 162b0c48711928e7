"""Key files and hardware keys."""
