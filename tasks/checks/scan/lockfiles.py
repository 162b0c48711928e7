"""Chooses which files of a bundle say what it is built from, and reads them.

Each format that is known is read (`tasks.checks.scan.formats`), or named as not read. Nothing is installed, resolved
or asked for: what names no exact version is reported as such.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from posixpath import dirname
from typing import Literal

from ashat.bundle.manifest import FileEntry
from tasks.checks.kit.base import CheckContext, one_line
from tasks.checks.scan.archives import ARCHIVE, ARCHIVE_LIMIT, OTHER_ARCHIVE, open_archive
from tasks.checks.scan.formats import dotnet, jvm, node, others, python
from tasks.checks.scan.formats.limits import TEXT_LIMIT
from tasks.checks.scan.packages import Declared, Reader, read_safely

TOTAL_LIMIT = 128 * 1024 * 1024
ARCHIVES_LIMIT = 512 * 1024 * 1024

# What says which versions there are, what only asks for some, and what is a package's own word on the disk.
Kind = Literal["lock", "manifest", "installed"]


@dataclass(frozen=True)
class Format:
    """A file that declares packages, by its path. `lock` files override a `manifest` of the same packages."""

    path: re.Pattern[str]
    reader: Reader
    kind: Kind


def _format(kind: Kind, path: str, reader: Reader) -> Format:
    return Format(re.compile(rf"(^|/)({path})$"), reader, kind)


FORMATS = (
    _format("installed", r"[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO|egg-info|EGG-INFO/PKG-INFO)", python.metadata),
    _format("lock", r"(?i:requirements/[^/]+|([^/]*[-_.])?requirements([-_.][^/]*)?)\.txt", python.requirements),
    _format("manifest", r"(?i:requirements/[^/]+|([^/]*[-_.])?requirements([-_.][^/]*)?)\.in", python.requirements),
    _format("lock", r"(?i:([^/]*[-_.])?constraints([-_.][^/]*)?)\.txt", python.constraints),
    _format("lock", r"(uv|poetry|pdm)\.lock|pylock(\.[^./]+)?\.toml", python.toml_lock),
    _format("lock", r"Pipfile\.lock", python.pipfile_lock),
    _format("manifest", r"Pipfile", python.pipfile),
    _format("manifest", r"pyproject\.toml", python.pyproject),
    _format("manifest", r"setup\.cfg", python.setup_cfg),
    _format("lock", r"(conda-lock|[^/]+\.conda-lock)\.ya?ml", python.conda_lock),
    _format("lock", r"pixi\.lock", python.pixi_lock),
    _format("manifest", r"([^/]*[-_.])?environment([-_.][^/]*)?\.ya?ml", python.conda_environment),
    _format("installed", r"conda-meta/[^/]+\.json", python.conda_meta),
    _format("installed", r"node_modules/(@[^/]+/)?[^/@][^/]*/package\.json", node.installed),
    _format("lock", r"package-lock\.json|npm-shrinkwrap\.json", node.npm_lock),
    _format("installed", r"\.package-lock\.json", node.npm_lock),
    _format("lock", r"yarn\.lock", node.yarn_lock),
    _format("lock", r"pnpm-lock\.yaml", node.pnpm_lock),
    _format("lock", r"bun\.lock", node.bun_lock),
    _format("manifest", r"package\.json", node.package_json),
    _format("installed", r"[^/]+\.deps\.json|project\.assets\.json", dotnet.deps_json),
    _format("lock", r"packages\.lock\.json|packages\.[^/]+\.lock\.json", dotnet.packages_lock),
    _format("lock", r"packages\.config", dotnet.packages_config),
    _format("manifest", r"[^/]+\.(cs|fs|vb)proj|Directory\.(Packages|Build)\.(props|targets)", dotnet.project),
    _format("installed", r"META-INF/maven/[^/]+/[^/]+/pom\.properties", jvm.pom_properties),
    _format("installed", r"META-INF/maven/[^/]+/[^/]+/pom\.xml", jvm.installed_pom),
    _format("manifest", r"pom\.xml", jvm.pom),
    _format("lock", r"(buildscript-)?gradle\.lockfile|dependency-locks/[^/]+\.lockfile", jvm.gradle_lock),
    _format("installed", r"vendor/modules\.txt", others.go_vendor),
    _format("lock", r"go\.mod", others.go_mod),
    _format("lock", r"go\.sum", others.go_sum),
    _format("lock", r"Cargo\.lock", others.cargo_lock),
    _format("manifest", r"Cargo\.toml", others.cargo_toml),
    _format("lock", r"Gemfile\.lock|gems\.locked", others.gemfile_lock),
    _format("manifest", r"Gemfile|gems\.rb", others.gemfile),
    _format("installed", r"specifications/([^/]+/)?[^/]+\.gemspec", others.gemspec),
    _format("lock", r"composer\.lock", others.composer_lock),
    _format("installed", r"vendor/composer/installed\.json", others.composer_lock),
    _format("manifest", r"composer\.json", others.composer_json),
    _format("installed", r"var/lib/dpkg/(status|status\.d/[^/]+(?<!\.md5sums))", others.debian_status),
    _format("installed", r"lib/apk/db/installed", others.alpine_installed),
)  # fmt: skip
_NUSPEC = Format(re.compile(r"!/[^/]+\.nuspec$"), dotnet.nuspec, "installed")
_GO_SUM = next(each for each in FORMATS if each.reader is others.go_sum)

# Known, and not read: each with whose it is, and with the files beside it that say the same and are read.
UNREAD: dict[re.Pattern[str], tuple[str, frozenset[str]]] = {
    re.compile(rf"(^|/)({path})$"): (whose, frozenset(covered))
    for path, whose, covered in (
        (r"bun\.lockb", "Bun's lock file in binary", ("bun.lock",)),
        (r"build\.gradle(\.kts)?", "a program of Gradle's, which is not run", ("gradle.lockfile",)),
        (r"libs\.versions\.toml", "Gradle's catalogue of versions", ("gradle.lockfile", "../gradle.lockfile")),
        (r"setup\.py", "a program of setuptools', which is not run", ("pyproject.toml", "setup.cfg", "__init__.py")),
        (r"deno\.(lock|jsonc?)", "Deno's", ()),
        (r"config/importmap\.rb", "Rails' map of imports", ()),
        (r"build\.sbt|[^/]+\.sbt\.lock|build\.sc", "Scala's build", ()),
        (r"project\.clj|deps\.edn", "Clojure's build", ()),
        (r"ivy\.xml", "Ivy's", ()),
        (r"paket\.(lock|dependencies)", "Paket's", ()),
        (r"mix\.(lock|exs)|rebar\.(lock|config)", "Elixir's and Erlang's", ()),
        (r"pubspec\.(lock|yaml)", "Dart's", ()),
        (r"Package\.(resolved|swift)|Podfile(\.lock)?|Cartfile(\.resolved)?", "Swift's and Objective-C's", ()),
        (r"conan\.lock|conanfile\.(txt|py)|vcpkg\.json", "C's and C++'s", ()),
        (r"stack\.yaml(\.lock)?|cabal\.project(\.freeze)?", "Haskell's", ()),
        (r"renv\.lock|packrat\.lock", "R's", ()),
        (r"cpanfile(\.snapshot)?", "Perl's", ()),
        (r"shard\.lock", "Crystal's", ()),
        (r"elm\.json", "Elm's", ()),
        (r"flake\.lock|MODULE\.bazel(\.lock)?|WORKSPACE(\.bazel)?", "Nix' and Bazel's", ()),
        (r"var/lib/rpm/(Packages(\.db)?|rpmdb\.sqlite)|var/lib/pacman/local", "an rpm or pacman database", ()),
    )
}  # fmt: skip

# The endings, or whole names, of all of these.
_ENDINGS = frozenset(
    [
        "metadata",
        "pkg-info",
        "egg-info",
        "txt",
        "in",
        "lock",
        "toml",
        "yaml",
        "yml",
        "cfg",
        "gemfile",
        "pipfile",
        "config",
        "csproj",
        "fsproj",
        "vbproj",
        "props",
        "targets",
        "properties",
        "xml",
        "lockfile",
        "mod",
        "sum",
        "locked",
        "rb",
        "gemspec",
        "nuspec",
        "status",
        "installed",
        "lockb",
        "gradle",
        "kts",
        "sbt",
        "sc",
        "clj",
        "edn",
        "dependencies",
        "exs",
        "resolved",
        "swift",
        "podfile",
        "snapshot",
        "freeze",
        "bazel",
        "workspace",
        "cpanfile",
        "cartfile",
        "packages",
        "db",
        "sqlite",
        "local",
        "jar",
        "war",
        "ear",
        "aar",
        "hpi",
        "whl",
        "egg",
        "nupkg",
        "zip",
        "tgz",
        "tbz",
        "tbz2",
        "txz",
        "tar",
        "gz",
        "bz2",
        "xz",
        "zst",
        "gem",
        "crate",
        "conda",
        "deb",
        "rpm",
        "apk",
        "phar",
        "asar",
        "7z",
        "rar",
        "pex",
        "project",
        "pyz",
    ]
)
_OF_MANY = re.compile(
    r"(^|/)(setup\.py|conanfile\.py|(.*[./-])?(package|deps|lock|assets|installed|composer|shrinkwrap|vcpkg|elm|deno)\.jsonc?|"
    r"packages[^/]*\.json|conda-meta/[^/]+\.json)$"
)

# Inside of a package that lies in the bundle. What its authors locked is not what is there.
_INSIDE = re.compile(r"(^|/)(node_modules/(?!\.)(@[^/]+/)?[^/]+|(site|dist)-packages(?=/[^/]+/.)|gems/[^/]+-\d[^/]*)/")


def declared_packages(context: CheckContext) -> Declared:
    """Read every file of the bundle that declares packages, a file at a time; what was read last is remembered."""
    found = _read_last.get(context.manifest.digest)
    if found is None:
        found = _declared(context)
        _read_last.clear()
        _read_last[context.manifest.digest] = found
    return found


# By the digest of the bundle, whose bytes are the same wherever they are read.
_read_last: dict[str, Declared] = {}


def _declared(context: CheckContext) -> Declared:
    found = Declared()
    manifest = context.manifest
    paths = [*manifest.by_path, *(link.path for link in manifest.links)]
    files = {path: replace(file, path=path) for path in paths if (file := manifest.file_at(path))}
    chosen = dict(select(list(files), found))
    known = set(chosen)
    _read(context, [(files[path], reader) for path, reader in chosen.items()], found)
    while included := {path: each for path, each in found.included.items() if path not in known}:
        known |= included.keys()
        for path in sorted(included.keys() - files.keys()):
            shown = "a file from an address" if ":/" in path else f"{one_line(path, 80)}, which is not in the bundle"
            found.leave(included[path][0], f"it includes {shown}")
        there = [(files[path], included[path][1]) for path in sorted(included) if path in files]
        _read(context, there, found)
    kinds = {path: format_of(path) for path in set(found.packages.values())}
    found.complete = {
        package.ecosystem
        for package, path in found.packages.items()
        if (kind := kinds[path]) is None or kind.kind != "manifest"
    }
    return found


def select(paths: Sequence[str], found: Declared) -> list[tuple[str, Reader]]:
    """Choose a reader for each path that declares packages; note in `found` which known formats are not read."""
    there = set(paths)
    vendored = {dirname(dirname(path)) if path.endswith("composer/installed.json") else dirname(path) for path in paths
                if path.endswith(("vendor/modules.txt", "vendor/composer/installed.json"))}  # fmt: skip
    chosen: list[tuple[str, Format]] = []
    for path in filter(_worth_a_look, paths):
        kind = format_of(path)
        if kind is None:
            _note_unread(path, there, found)
        elif kind.kind != "installed" and _inside(path, vendored):
            found.inner += kind.kind == "lock"
        elif kind is _GO_SUM and f"{path.removesuffix('sum')}mod" in there:
            continue  # go.mod has it read, where it needs it
        elif kind.reader is jvm.installed_pom and f"{path.removesuffix('xml')}properties" in there:
            continue
        else:
            chosen.append((path, kind))
    # What only asks for versions comes last, so that a package is named with the file that has its version.
    return [(path, kind.reader) for path, kind in sorted(chosen, key=lambda each: each[1].kind == "manifest")]


def _worth_a_look(path: str) -> bool:
    """Tell by its ending whether a file may declare packages: most cannot, and trying each format takes time."""
    name = path.rpartition("/")[2]
    ending = name.rpartition(".")[2].lower()
    return bool(_OF_MANY.search(path)) if ending in ("json", "py") else ending in _ENDINGS


def _inside(path: str, vendored: set[str]) -> bool:
    """Tell whether a file belongs to a package that lies in the bundle, and not to the bundle itself."""
    return bool(_INSIDE.search(path)) or any(path.startswith(f"{place}/") for place in vendored)


def _note_unread(path: str, there: set[str], found: Declared) -> None:
    if OTHER_ARCHIVE.search(path):
        found.closed.add(path)
    for pattern, (whose, covered) in UNREAD.items():
        if pattern.search(path) and not _INSIDE.search(path):
            where = dirname(path)
            beside = {f"{where}/{name}" if where else name for name in covered}
            beside |= {f"{dirname(where)}/{name[3:]}".lstrip("/") for name in covered if name.startswith("../")}
            if not beside & there:
                found.leave(path, f"{whose}: this format is not read")
            return


def format_of(path: str) -> Format | None:
    """Find the format of a file by its path; None for one that declares no packages, or in a way that is not read."""
    if "!/" in path and _NUSPEC.path.search(path):
        return _NUSPEC
    inner = path.rpartition("!/")[2]
    known = next((each for each in FORMATS if each.path.search(inner)), None)
    if known is None and "!/" not in path and ARCHIVE.search(path):
        return Format(ARCHIVE, partial(open_archive, select=select), "installed")
    return known


def _read(context: CheckContext, files: list[tuple[FileEntry, Reader]], found: Declared) -> None:
    wanted, total, opened = [], 0, 0
    for file, reader in files:
        archive = bool(ARCHIVE.search(file.path))
        most, all_of_them = (ARCHIVE_LIMIT, ARCHIVES_LIMIT) if archive else (TEXT_LIMIT, TOTAL_LIMIT)
        total, opened = total + file.size * (not archive), opened + file.size * archive
        if file.size > most:
            found.leave(file.path, f"over {most // 1024 // 1024} MB")
        elif (opened if archive else total) > all_of_them:
            found.leave(file.path, f"beyond {all_of_them // 1024 // 1024} MB of such files")
        elif file.size:
            wanted.append((file, reader))
    contents = context.public.files_bytes([file for file, _ in wanted]) if wanted else iter(())
    for (file, reader), content in zip(wanted, contents, strict=True):
        context.left()
        read_safely(file.path, content, found, reader)


def read_declaration(path: str, content: bytes, found: Declared) -> None:
    """Add to `found` what one file declares, as its path says."""
    for _, reader in select([path], found):
        read_safely(path, content, found, reader)
