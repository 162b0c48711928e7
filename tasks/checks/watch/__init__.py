"""What the runtime check watches of a running release, as its node sees it: its files, and what they came to."""
