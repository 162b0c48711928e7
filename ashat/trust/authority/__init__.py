"""Who signs for OMEGA, and how that changes."""
