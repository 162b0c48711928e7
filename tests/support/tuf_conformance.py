"""The update client of a Mainframe under the command protocol of tuf-conformance, as a program.

The protocol is https://github.com/theupdateframework/tuf-conformance/blob/main/CLIENT-CLI.md. What is driven is what a
Mainframe uses: the same updater, limits, lock and fetcher (`ashat.trust.update_client.client.open_updater`). What a
Mainframe asks on top, Ed25519 keys alone and a lowest `release_seq`, is left out: the suite has other keys and no
releases.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.common.files import make_directory, replace_file
from ashat.errors import NoReleaseError, TrustError, UsageError
from ashat.node.cli.main import run

if TYPE_CHECKING:
    from tuf.ngclient import Updater

# Beside the metadata, not among it: the suite takes every .json for metadata that is trusted.
_BOOTSTRAP = "bootstrap"

shim_app = typer.Typer(
    no_args_is_help=True, help="The update client under the tuf-conformance suite's protocol, for testing it."
)

MetadataUrl = Annotated[str, typer.Option("--metadata-url", help="Where the repository's metadata is.")]


@shim_app.callback()
def _options(
    context: typer.Context,
    metadata_dir: Annotated[Path, typer.Option("--metadata-dir", help="Where trusted metadata is kept.")],
    metadata_url: MetadataUrl = "",
    target_name: Annotated[list[str] | None, typer.Option("--target-name", help="A target; may be repeated.")] = None,
    target_base_url: Annotated[str, typer.Option("--target-base-url", help="Where the targets are.")] = "",
    target_dir: Annotated[Path | None, typer.Option("--target-dir", help="Where to put them.")] = None,
) -> None:
    context.obj = context.params


@shim_app.command()
def init(
    context: typer.Context,
    trusted_root: Annotated[Path, typer.Argument(metavar="ROOT", help="The root metadata to begin with.")],
) -> None:
    """Begin to trust a root; nothing is asked of the repository."""
    metadata: Path = context.obj["metadata_dir"]
    try:
        root = trusted_root.read_bytes()
        make_directory(metadata)
        for name in (_BOOTSTRAP, "root.json"):
            replace_file(metadata / name, root)
    except OSError as error:
        raise TrustError(f"{trusted_root} cannot be taken as the root: {error.strerror}.") from None


@shim_app.command()
def refresh(context: typer.Context) -> None:
    """Update the metadata of the top-level roles."""
    with _updater(context) as updater:
        updater.refresh()


@shim_app.command()
def download(context: typer.Context) -> None:
    """Update the metadata, and get each target that is named, in that order."""
    names, directory = context.obj["target_name"], context.obj["target_dir"]
    if not (names and directory and context.obj["target_base_url"]):
        raise UsageError("download needs --target-name, --target-base-url and --target-dir.")
    with _updater(context) as updater:
        updater.refresh()
        for name in names:
            found = updater.get_targetinfo(name)
            if found is None:
                raise NoReleaseError(f"The repository has no target {name}.")
            if updater.find_cached_target(found) is None:
                updater.download_target(found)


@contextmanager
def _updater(context: typer.Context) -> Iterator[Updater]:
    from ashat.client.http import Transport
    from ashat.trust.update_client.client import open_updater
    from ashat.trust.update_client.fetcher import RemoteRepository

    given = context.obj
    if not given["metadata_url"]:
        raise UsageError("Where is the repository? Give --metadata-url URL.")
    metadata: Path = given["metadata_dir"]
    try:
        root = (metadata / _BOOTSTRAP).read_bytes()
    except OSError:
        raise TrustError(f"{metadata} holds no root to begin with; run init first.") from None
    with (
        Transport(given["metadata_url"], name="The repository") as transport,
        open_updater(
            RemoteRepository(transport, given["metadata_url"]),
            metadata,
            root=root,
            targets_url=given["target_base_url"] or None,
            documents=given["target_dir"],
        ) as updater,
    ):
        yield updater


if __name__ == "__main__":
    sys.exit(run(shim_app))
