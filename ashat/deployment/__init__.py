"""Define the life of an update: its events, the state machine that folds them, the rules of approval and rollback."""
