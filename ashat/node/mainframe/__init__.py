"""The agent on a Licensed Mainframe: what it asks OMEGA, what it believes, and what it does then."""
