"""What approvers sign: a release, its provenance, the log that they know."""
