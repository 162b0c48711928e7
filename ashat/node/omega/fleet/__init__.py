"""The fleet: OMEGA's licences, its Mainframes and what became of each rollout on them, in a database of its own."""
