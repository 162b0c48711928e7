"""`deploy configure policy`: a verification policy from a file, so that it can be kept under version control."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.terminal import output
from ashat.errors import DocumentError, PolicyError, UsageError

if TYPE_CHECKING:
    from ashat.verification.policy import Policy


FILE_LIMIT = 1024 * 1024


def configure_policy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that verify asks for, such as default.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A TOML file: the keys of docs/checks.md, such as warns.")
    ],
) -> None:
    """Configure what a verification asks of a release. Credentials are set in Prefect's UI, and are kept."""
    from ashat.cli.control_plane.connect import ensure_control_plane
    from ashat.common.identifiers import check_server_name
    from ashat.settings import Settings

    check_server_name(name)
    policy = read_policy(file)
    ensure_control_plane(Settings(), output.note)

    from blocks.find import find_block
    from blocks.policy import VerificationPolicy
    from tasks.verify.policies import check_policy

    try:
        check_policy(policy)
    except PolicyError as error:
        raise UsageError(f"{file}: {error}") from None
    before = find_block(VerificationPolicy, name)
    credentials = before.secrets() if before else {}
    VerificationPolicy.model_validate({**policy.model_dump(), "credentials": credentials}).save(name, overwrite=True)
    output.say("✅ Verification policy configured successfully")
    output.say(f"  Name: {name}")
    output.say(f"  Digest: {policy.digest}")


def read_policy(file: Path) -> Policy:
    """The policy that a TOML file holds; what it leaves out is as built in.

    Raises:
        UsageError: it cannot be read, or a key is unknown or wrong; one line that names file and key.
    """
    from pydantic import ValidationError

    from ashat.common.documents import load_toml
    from ashat.common.files import read_bounded
    from ashat.verification.policy import Policy

    try:
        document = load_toml(read_bounded(file, FILE_LIMIT), limit=FILE_LIMIT)
    except OSError as error:
        raise UsageError(f"The policy {file} cannot be read: {error.strerror}.") from None
    except DocumentError as error:
        raise UsageError(f"{file} is not TOML: {error}.") from None
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        known = f" Known are {', '.join(Policy.model_fields)}." if first["type"] == "extra_forbidden" else ""
        reason = "there is no such key" if known else first["msg"][:1].lower() + first["msg"][1:]
        raise UsageError(f"{file}: {key}: {reason}.{known}") from None
