"""A certificate authority of a test's own, and certificates for this machine signed by it."""

from __future__ import annotations

from pathlib import Path

from tasks.selftest.faults.certificates import make_identity


def make_certificate(directory: Path) -> tuple[Path, Path, Path]:
    """A certificate for 127.0.0.1 and localhost, its key, and the authority that signed it, as PEM files."""
    made = make_identity(directory)
    return made.certificate, made.key, made.authority
