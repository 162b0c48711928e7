"""The commands of `deploy`, one subject a file. Each imports what it needs when it is called."""
