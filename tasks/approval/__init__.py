"""Ask people to approve: the question, its page, the runs that wait, and their signatures."""
