"""One real node process each."""
