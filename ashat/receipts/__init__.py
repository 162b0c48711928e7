"""One file for a customer that proves what was approved and shipped."""
