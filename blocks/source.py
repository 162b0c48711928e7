"""Keep in a Prefect block where ALPHA's tree, or an artifact, is, for pushes from the UI and on a schedule."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.blocks.core import Block
from pydantic import Field

from ashat.bundle.artifacts.pack import is_artifact
from ashat.bundle.git import clone
from ashat.errors import NotConfiguredError
from blocks.find import find_block


class Source(Block):
    """
    A tree that can be pushed: a directory, a git repository and what to take of it, or an archive or an OCI image.

    Attributes:
        location: A directory, an archive, a wheel or an OCI image layout on ALPHA, or the URL of a git repository.
        ref: The commit, branch, tag or image to pack; empty packs a directory as it lies there, and the only image.
        subdirectory: The part of the tree to pack; empty packs all of it.
        digest: The sha256 that an archive, a wheel or an image must have; empty takes any.

    Example:
        Load a stored source and look at its tree:
        ```python
        from blocks.source import Source

        with Source.load("BLOCK_NAME").checkout() as tree:
            print(sorted(tree.iterdir()))
        ```
    """

    _block_type_name = "RaOS Source"
    _block_type_slug = "raos-source"
    _description = "A directory, a git repository or an artifact that releases are packed from."

    location: str = Field(
        title="Location", description="A directory or artifact on ALPHA, or the URL of a git repository."
    )
    ref: str = Field(
        default="", title="Ref", description="The commit, branch, tag or image to pack; empty: as it lies there."
    )
    subdirectory: str = Field(default="", title="Subdirectory", description="The part to pack; empty: all of it.")
    digest: str = Field(default="", title="Digest", description="The sha256 of an artifact; empty: any.")

    @property
    def remote(self) -> bool:
        """Whether the location is a git URL rather than a directory."""
        return "://" in self.location or self.location.startswith("git@")

    @contextmanager
    def checkout(self) -> Iterator[Path]:
        """Provide the directory or the artifact to pack; a URL is cloned, and the clone removed afterwards.

        Raises:
            BundleError: git cannot clone it, or has no such ref.
        """
        if not self.remote:
            found = Path(self.location).expanduser()
            yield found if is_artifact(found) else found / self.subdirectory
            return
        directory = Path(tempfile.mkdtemp(prefix="ashat-source-"))
        try:
            clone(self.location, directory / "tree", self.ref or None)
            yield directory / "tree" / self.subdirectory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def load_source(name: str) -> Source:
    """Load the source block of that name.

    Raises:
        NotConfiguredError: there is none.
    """
    found = find_block(Source, name)
    if found is None:
        raise NotConfiguredError(
            f"No source '{name}' is configured: deploy configure source {name} <directory, artifact or git URL>."
        )
    return found
