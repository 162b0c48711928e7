"""Say what a tree was packed from: an artifact by its digest, or a commit and how the files differ from it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DifferingFiles(BaseModel):
    """How many files differ in one way, and the first few of them by name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    count: int = Field(default=0, ge=0)
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = self.count - len(self.names)
        return ", ".join(self.names) + (f" and {more} more" if more else "")


class Differences(BaseModel):
    """How the files that were packed differ from those of the commit that they are said to be of.

    `changed` have other bytes there, or another mode; `added` are not in it, be they untracked or ignored; `missing`
    are in it and not here. `converted` counts those that differ only as a checkout does by its own attributes (ends of
    lines, Git LFS), and `directories` the empty ones, which no commit can hold: they are no difference.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    changed: DifferingFiles = DifferingFiles()
    added: DifferingFiles = DifferingFiles()
    missing: DifferingFiles = DifferingFiles()
    converted: int = Field(default=0, ge=0)
    directories: int = Field(default=0, ge=0)

    @property
    def count(self) -> int:
        """How many files differ."""
        return sum(files.count for _, files in self.ways)

    @property
    def ways(self) -> tuple[tuple[str, DifferingFiles], ...]:
        """Each way to differ, in words that follow a number, with the files that do."""
        return ("changed", self.changed), ("not in it", self.added), ("missing", self.missing)

    def __str__(self) -> str:
        return "; ".join(f"{files.count} {way}: {files}" for way, files in self.ways if files.count)


def compared_in_words(dirty: bool, differences: Differences | None) -> str:
    """Say of files how they are those of a commit, in words that follow its name; arguments as of `Source`."""
    if differences is None:
        return ", with uncommitted changes" if dirty else ", not compared file by file"
    if differences.count:
        one = differences.count == 1
        files = "1 file is not as it has it" if one else f"{differences.count} files are not as it has them"
        return f", but {files} ({differences})"
    asides = []
    if differences.converted:
        asides.append(f"{differences.converted} as its attributes have them checked out")
    if differences.directories:
        asides.append(f"besides, {differences.directories} empty directories, which git does not keep")
    return ", file by file" + (f" ({'; '.join(asides)})" if asides else "")


class Artifact(BaseModel):
    """What a tree was unpacked from: the `name` of its file or directory, its `kind`, its sha256 and its size in bytes.

    `digest` is of the file; of an OCI image (`oci`) it is that of its manifest, which is what registries call it by.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(max_length=255)
    kind: str = Field(max_length=20)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, le=2**63 - 1)

    def __str__(self) -> str:
        return f"{self.kind} {self.name} (sha256:{self.digest})"
