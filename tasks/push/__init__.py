"""Pack a source, and send Public what it lacks."""
