"""Tools that people lend each other."""
