"""Bring the record up to date after what no flow saw: gates that Prefect lost, runs that died."""
