"""A control plane and four nodes."""
