"""What a node runs of a release, by its raos.toml: whether the node's settings allow it, and which command it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ashat.common.files import read_bounded
from ashat.common.shortage import reason
from ashat.errors import AshatError, IntegrityError, NotStoredError
from ashat.node.app_process.process import ProgramError
from ashat.node.core.config import ANY_PROGRAM, NodeConfig
from ashat.node.core.errors import ApiError
from ashat.node.store.store import Store
from ashat.protocol.messages import Role
from ashat.raos_toml.load import NAME, SIZE_LIMIT, load_commands
from ashat.raos_toml.schema import Commands
from ashat.rollouts import barriers


def commands_in(directory: Path) -> Commands:
    """Read what a node runs of the release in `directory`; nothing where it has no raos.toml of its own.

    Raises:
        BundleError: its raos.toml cannot be read.
        OSError: likewise.
    """
    path = directory / NAME
    if path.is_symlink() or not path.is_file():
        return Commands()
    return load_commands(read_bounded(path, SIZE_LIMIT))


def stored_commands(store: Store, bundle: str) -> Commands:
    """Read the same of a bundle that is not a directory yet; nothing where the store has lost it.

    Raises:
        BundleError: its raos.toml cannot be read.
    """
    try:
        file = store.manifest(bundle).by_path.get(NAME)
        if file is None:
            return Commands()
        if file.size > SIZE_LIMIT:
            return load_commands(bytes(SIZE_LIMIT + 1))
        return load_commands(b"".join(store.read(digest) for digest, _ in file.objects()))
    except (NotStoredError, IntegrityError):
        return Commands()


CANNOT_BE_READ: Final = "from which versions it can be installed cannot be read"


def is_urgent(store: Store, bundle: str) -> bool:
    """Tell whether a bundle that is here is marked as urgent by its raos.toml; one that cannot be read is not."""
    try:
        return stored_commands(store, bundle).is_urgent
    except AshatError:
        return False


def why_barred(store: Store, bundle: str, current: str | None) -> str:
    """Say why a bundle that is here cannot be installed on what runs the bundle `current`, by what its raos.toml names
    in `installable_from`; "" where it can. On what runs nothing anything can be installed.

    Raises:
        BundleError: its raos.toml cannot be read.
    """
    if current is None or current == bundle:
        return ""
    try:
        release = stored_commands(store, bundle).release
    except ValueError as error:
        return f"{CANNOT_BE_READ}: {str(error).rstrip('.')}"
    if release.origins is None:
        return ""
    try:
        version = stored_commands(store, current).release.version
    except (AshatError, ValueError):
        version = ""
    return barriers.why_barred(release, version)


def program_command(config: NodeConfig, directory: Path) -> Sequence[str]:
    """Choose the command that runs the release in `directory`: the operator's, or else the release's.

    Raises:
        ProgramError: there is none, or this node does not allow it.
    """
    if config.app.command:
        return config.app.command
    try:
        commands = commands_in(directory)
    except OSError as error:
        raise ProgramError(f"{NAME} of the release cannot be read: {reason(error)}") from error
    why = _unfit_program(config, commands)
    if why or commands.app is None:
        raise ProgramError(f"the release {why}")
    return commands.app.command


def refusal(config: NodeConfig, store: Store, bundle: str) -> ApiError | None:
    """Decide whether this node refuses to run what the release names, before anything changes; why, in one line.

    Where the node runs nothing at all, what it would run of the release need not be readable.
    """
    try:
        commands = stored_commands(store, bundle)
    except AshatError as error:
        if not config.app.runs:
            return None
        return ApiError(409, "not_allowed", f"The release {bundle[:12]} is not run here: {error}")
    why = _unfit_program(config, commands)
    if not why and commands.migrate is not None and config.app.migrates == "refuse":
        why = (
            "has a migrate step, which this node does not run: set app.migrate to run, or to skip where the hook "
            "migrates"
        )
    return ApiError(409, "not_allowed", f"The release {bundle[:12]} {why}.") if why else None


def _unfit_program(config: NodeConfig, commands: Commands) -> str:
    """Say why the program of the release cannot be run here; "" where it can, or where its command does not count."""
    app, declared = config.app, commands.app
    if app.command or app.hook:
        return ""
    if not app.release_command:
        if declared is None or config.role is Role.OMEGA:
            return ""
        return (
            f"names its own program, {declared.command[0]!r} ([app] command), which this node does not allow: set "
            "app.release_command, or app.command"
        )
    if declared is None:
        return "has no [app] command in its raos.toml, and this node has no app.command of its own"
    if declared.command[0] in app.release_command or ANY_PROGRAM in app.release_command:
        return ""
    allowed = ", ".join(map(repr, app.release_command))
    return (
        f"names the program {declared.command[0]!r} ([app] command); this node's app.release_command allows {allowed}"
    )
