"""What the security check scans: files, credentials, headers, TLS, lock files, advisories."""
