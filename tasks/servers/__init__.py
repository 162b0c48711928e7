"""What the servers run, against what the record says; and the turns on Public."""
