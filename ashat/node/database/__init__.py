"""Looking at the program's own database: dialects, the probe, what its answers leave out, how often it is asked."""
