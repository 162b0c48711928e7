"""The agent that runs on the Public Server, on OMEGA and on every Mainframe."""
