"""What has no subject of its own: canonical JSON, durable files, identifiers, fail points."""
