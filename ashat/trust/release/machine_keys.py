"""This machine's own keys, under `ASHAT_HOME/trust`: `builder.pem` signs what is pushed from here, `verifier.pem` what
the checks saw that ran here. They are made when first needed and have no passphrase, since nobody is there to type one.

With either alone nothing is shipped: approvers sign what is shipped, with keys that no machine has.
"""

from __future__ import annotations

from pathlib import Path

from securesystemslib.signer import CryptoSigner, Key

from ashat.common.files import make_directory
from ashat.errors import KeyFileError, TrustError
from ashat.trust.keys.files import NAME_FIELD, check_name, create_key, load_signer
from ashat.trust.tuf.metadata import BUILDER, VERIFIER

ROLES = (BUILDER, VERIFIER)


def machine_path(home: Path, role: str) -> Path:
    """Name the file of the private key with which this machine acts as `role`."""
    return home / "trust" / f"{role}.pem"


def machine_signer(home: Path, role: str) -> CryptoSigner:
    """Load what this machine signs with as `role`, one of `ROLES`; it is made where it is not there yet.

    Raises:
        KeyFileError: the key cannot be read or written, or others may read it.
    """
    path = machine_path(home, role)
    if not path.exists():
        try:
            make_directory(path.parent, mode=0o700)
            create_key(path, role, None)
        except OSError as error:
            raise KeyFileError(f"{path.parent} cannot be made: {error.strerror}.") from error
        except TrustError:
            # Another process of this machine may have made it in the same moment.
            if not path.exists():
                raise
    return load_signer(path)


def machine_public_key(home: Path, role: str, name: str) -> Key:
    """Load the public half of this machine's key for `role`, called `name`; see `machine_signer`.

    Raises:
        KeyFileError: see there.
    """
    key = machine_signer(home, role).public_key
    key.unrecognized_fields[NAME_FIELD] = check_name(name)
    return key
