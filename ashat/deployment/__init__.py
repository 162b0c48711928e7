"""The life of an update: its events, the state machine that folds them, and the pure rules of approval and rollback."""
