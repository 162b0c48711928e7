"""The program that a node runs: its process, its health, and what starts it again."""
