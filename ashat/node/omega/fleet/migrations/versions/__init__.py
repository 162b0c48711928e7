"""One file a version; a later one changes what the earlier made."""
