"""Knows the credentials that their providers print in their documentation: they open nothing but a stage for tries."""

from __future__ import annotations

import hashlib

# The SHA-256 of each, since a scanner that holds one is found by every other. Each is from the page of its provider:
# Stripe's API reference (three), the storage and Cosmos emulators of Azure, reCAPTCHA's and Turnstile's keys for tests,
# RFC 7515 (A.1), the first two accounts of Hardhat's network and its words, and four of BIP 39's.
_PUBLISHED = frozenset(
    [
        "2cafc0970149a84f3b9e62eaf169f36f59907a3b3e31f7b82e68c69cd27f7326",
        "7e8de44ea9ecf6d53415c90f5b249a8591f7abafbf7d65a2c0d855afeca3ec09",
        "f2d6ca16515033e5dce14eba840b979d27b5cbae24bb3e5bf484339667f86397",
        "0011cc25eb4320717494d2703e8cba85743e71b500283c21c8b88147992f9059",
        "aa6547439583c3a275d4542a0df6c1ad6a863971be9f2a2220f027cc02aef615",
        "f5e95c9954635b65acab57e6d5ea663eb900f06dc8794a90358f5abb1c77d4e0",
        "fb8f35129df87662c650ada12fd614f1b58dce4a37fdd7589ba3a6b9a78c0aae",
        "8b1b17a9740c068accab5c3d0d652c8e3cc13206e70bb73b42ea41d4c2de3c12",
        "bc1a50966c9e6486bc4ebf880b51611a2a97fcb8e7a6976e9b81a9e3e8ca0e3c",
        "8335c55334821eefd4334369ff9c04a8594f161013cf9d87f58802d87297837e",
        "f79cd64f9cea237897b8133e4b905b361c6f166faa5a1c64c32280938f5b707e",
        "c557eec878dfd852ba3f88087c4f350f09c55537ab5e549c3cd14320ec3cef38",
        "ecb0e7ba498c5920991f0b3483e91f7abafa9ecc6bd82a9a51494589592b1a8f",
        "3a64bcd9cea43c0aba67ba0bf2ddff8137a492bccbc672107fcbf7381086f698",
        "3c0949435a7e4277fac2fbe27975cdd9f5b5abf94d282112eaf4cebbb8560984",
    ]
)


def is_published(credential: str) -> bool:
    """Tell whether `credential` is one that its provider prints for everybody."""
    return hashlib.sha256(credential.encode()).hexdigest() in _PUBLISHED
