"""What people are asked to approve."""
