"""Verification as documents: the policy, and the evidence."""
