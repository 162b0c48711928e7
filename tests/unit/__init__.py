"""No process: pure functions, databases in files."""
