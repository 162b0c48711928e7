"""What makes a task a step: retries, the ledger, the reporter, artifacts, notifications."""
