"""Compare what the servers run with the record, and switch Public from update to update."""
