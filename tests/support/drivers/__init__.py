"""Drives a browser, and the console of the documents."""
