"""kill -9 at every fault point, races, and recovery."""
