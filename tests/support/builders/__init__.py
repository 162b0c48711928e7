"""Makes records, evidence, keys and tampered logs."""
