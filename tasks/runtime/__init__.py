"""Run a flow's steps: connections, retries, the reporter, artifacts, notifications."""
