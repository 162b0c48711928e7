"""`deploy trust builder-key` and `verifier-key`: the public half of what this machine signs provenance with."""

from __future__ import annotations

from ashat.cli.terminal import output


def builder_key() -> None:
    """Print the public key with which this machine signs what is pushed from it, made if it has none yet."""
    _print("builder")


def verifier_key() -> None:
    """Print the public key with which this machine signs what the checks saw that ran on it."""
    _print("verifier")


def _print(role: str) -> None:
    from ashat.settings import Settings
    from ashat.trust.keys.files import public_pem
    from ashat.trust.release.machine_keys import machine_signer

    output.write(public_pem(machine_signer(Settings().ensure_home(), role)))
