"""`deploy configure policy` and `rollout-policy`: from files, so that they can be kept under version control."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.errors import DocumentError, PolicyError, UsageError

if TYPE_CHECKING:
    from ashat.rollouts.policy import RolloutPolicy
    from ashat.verification.policy import Policy


FILE_LIMIT = 1024 * 1024


def configure_policy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that verify asks for, such as default.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A TOML file: the keys of docs/checks.md, such as warns.")
    ],
    dry_run: DryRun = False,
) -> None:
    """Configure what a verification asks of a release. Credentials are set in Prefect's UI, and are kept."""
    from ashat.common.identifiers import check_server_name

    check_server_name(name)
    policy = read_policy(file)
    ready(dry_run=dry_run)

    from blocks.find import find_block
    from blocks.policy import VerificationPolicy
    from tasks.verify.policies import check_policy

    try:
        check_policy(policy)
    except PolicyError as error:
        raise UsageError(f"{file}: {error}") from None
    before = find_block(VerificationPolicy, name)
    if dry_run:
        now = f"now: {before.policy().digest}" if before else "there is none of that name yet"
        would(f"configure the verification policy {name}", f"Digest: {policy.digest}; {now}")
        return
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

    from ashat.verification.policy import Policy

    document = _read_toml(file)
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        known = f" Known are {', '.join(Policy.model_fields)}." if first["type"] == "extra_forbidden" else ""
        reason = "there is no such key" if known else first["msg"][:1].lower() + first["msg"][1:]
        raise UsageError(f"{file}: {key}: {reason}.{known}") from None


def configure_rollout_policy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that ASHAT_ROLLOUT_POLICY gives.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A TOML file: the keys of docs/rollouts.md, such as waves.")
    ],
    check: Annotated[bool, typer.Option("--check", help="Save nothing: show what it says, and what it costs.")] = False,
    mainframes: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000_000, help="The size of the fleet that is shown.")
    ] = 1000,
    json: output.Json = False,
    dry_run: DryRun = False,
) -> None:
    """Configure in which waves a release reaches the Mainframes; show the waves, and what a bad release would break."""
    from ashat.common.identifiers import check_server_name

    check_server_name(name)
    policy = read_rollout_policy(file)
    check = check or dry_run
    if not check:
        ready()

        from blocks.rollout_policy import RolloutPolicy as Block

        Block.of(policy).save(name, overwrite=True)
    if json:
        output.show_json(_rollout_document(name, policy, mainframes))
        return
    output.say("✅ Rollout policy adds up" if check else "✅ Rollout policy configured successfully")
    output.say(f"  Name: {name}")
    output.say(f"  Digest: {policy.digest}")
    _show_plan(policy, mainframes)


def read_rollout_policy(file: Path) -> RolloutPolicy:
    """The rollout policy that a TOML file holds; what it leaves out is as built in.

    Raises:
        UsageError: it cannot be read, or does not add up; one line that names file and key.
    """
    from ashat.rollouts.policy import policy_of

    try:
        return policy_of(_read_toml(file))
    except PolicyError as error:
        raise UsageError(f"{file}: {error}") from None


def _show_plan(policy: RolloutPolicy, mainframes: int) -> None:
    """Print the waves of a fleet of that size, the conditions, and the forecast."""
    from ashat.rollouts.describe import FORECAST_COLUMNS, conditions, forecast_rows, planned_waves

    waves = [
        (str(number), wave.name, wave.takes, "by label" if wave.mainframes is None else f"{wave.mainframes:,}")
        for number, wave in enumerate(planned_waves(policy, mainframes), 1)
    ]
    output.say()
    output.say(f"Waves of {mainframes:,} Mainframes")
    for line in output.columns([("", "wave", "takes", "Mainframes"), *waves]):
        output.say(line)
    output.say()
    for sentence in conditions(policy):
        output.say(f"  {sentence}")
    output.say()
    output.say("What a bad release breaks before it stops, by the share of Mainframes that it would break")
    for line in output.columns([FORECAST_COLUMNS, *forecast_rows(policy, mainframes)]):
        output.say(line)


def _rollout_document(name: str, policy: RolloutPolicy, mainframes: int) -> dict[str, Any]:
    from ashat.rollouts.cohorts import expected_sizes
    from ashat.rollouts.describe import planned_waves
    from ashat.rollouts.forecast import forecast

    return {
        "name": name,
        "digest": policy.digest,
        "policy": policy.model_dump(mode="json"),
        "mainframes": mainframes,
        "waves": [wave._asdict() for wave in planned_waves(policy, mainframes)],
        "forecast": [found._asdict() for found in forecast(policy, expected_sizes(policy, mainframes))],
    }


def _read_toml(file: Path) -> dict[str, Any]:
    from ashat.common.documents import load_toml
    from ashat.common.files import read_bounded

    try:
        return load_toml(read_bounded(file, FILE_LIMIT), limit=FILE_LIMIT)
    except OSError as error:
        raise UsageError(f"The policy {file} cannot be read: {error.strerror}.") from None
    except DocumentError as error:
        raise UsageError(f"{file} is not TOML: {error}.") from None
