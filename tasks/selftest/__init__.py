"""The proof that each check catches what it claims to: bad releases made on purpose, run against the real checks."""
