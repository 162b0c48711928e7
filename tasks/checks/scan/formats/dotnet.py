"""What .NET's tools write: deps.json, lock files, project files, packages.config, and packages themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ashat.common.documents import load_json
from tasks.checks.scan.formats.limits import TEXT_LIMIT
from tasks.checks.scan.formats.markup import load_xml, text_of
from tasks.checks.scan.packages import Declared

_PROPERTY = re.compile(r"\$\(([\w.]+)\)")


def deps_json(path: str, content: bytes, found: Declared) -> None:
    """https://github.com/dotnet/sdk/blob/main/documentation/specs/runtime-configuration-file.md

    project.assets.json has its packages in the same form.
    """
    for key, item in load_json(content, limit=TEXT_LIMIT)["libraries"].items():
        if item.get("type") == "package":
            name, _, version = key.partition("/")
            found.add(path, "NuGet", name, version)


def packages_lock(path: str, content: bytes, found: Declared) -> None:
    """https://learn.microsoft.com/nuget/consume-packages/package-references-in-project-files#locking-dependencies"""
    for packages in load_json(content, limit=TEXT_LIMIT)["dependencies"].values():
        for name, item in packages.items():
            if str(item.get("type", "")).lower() != "project":
                found.add(path, "NuGet", name, item.get("resolved"))


def packages_config(path: str, content: bytes, found: Declared) -> None:
    """https://learn.microsoft.com/nuget/reference/packages-config: all packages, those that others bring too."""
    for item in load_xml(content).iter("package"):
        dev = item.get("developmentDependency", "").lower() == "true"
        found.add(path, "NuGet", item.get("id"), item.get("version"), dev=dev)


def project(path: str, content: bytes, found: Declared) -> None:
    """Add the references of a project file, or the versions of Directory.Packages.props.

    A reference without a version has it there.
    """
    root = load_xml(content)
    properties = {
        child.tag: (child.text or "").strip()
        for group in root.iter("PropertyGroup")
        for child in group
        if isinstance(child.tag, str)
    }
    for tag in ("PackageReference", "PackageVersion", "GlobalPackageReference"):
        for item in root.iter(tag):
            name = item.get("Include") or item.get("Update")
            version = item.get("Version") or item.get("VersionOverride") or text_of(item, "Version")
            dev = "all" in (item.get("PrivateAssets", ""), text_of(item, "PrivateAssets").lower())
            if name:
                found.add(path, "NuGet", name, _exact(_filled(version, properties)), dev=dev)
                found.direct[path] = "NuGet"


def _filled(version: str, properties: Mapping[str, str]) -> str:
    return _PROPERTY.sub(lambda match: properties.get(match[1], match[0]), version)


def _exact(version: str) -> str:
    """Return the version that a reference resolves to: NuGet takes the lowest that there is; "" for other ranges."""
    bare = re.fullmatch(r"\s*\[?\s*(\d[\w.+-]*)\s*\]?\s*", version)
    return bare[1] if bare and "*" not in version else ""


def nuspec(path: str, content: bytes, found: Declared) -> None:
    """Add a NuGet package by its own coordinates."""
    about = load_xml(content).find("metadata")
    if about is None:
        raise ValueError("no metadata")
    found.add(path, "NuGet", text_of(about, "id"), text_of(about, "version"))
