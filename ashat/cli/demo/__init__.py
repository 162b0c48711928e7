"""`deploy demo`: the whole path on this machine, with four servers of its own."""
