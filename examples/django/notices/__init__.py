"""What people pin to the board."""
