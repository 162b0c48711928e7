"""TUF metadata, and the repository of it that OMEGA serves."""
