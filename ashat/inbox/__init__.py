"""What waits for a person: questions, changes of trust that must be signed, and servers that need a look."""
