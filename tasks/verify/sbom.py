"""Write the SBOM of a release: what it is built from, as CycloneDX (https://cyclonedx.org/docs/1.6/json/).

The same bundle gives the same bytes: there is no time and no serial number in it, and its order is that of the package
URLs. It says of itself that it is incomplete where something was not read, and never that it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from packageurl import PackageURL

from ashat import __version__
from ashat.bundle.manifest import Manifest
from ashat.common.canonical_json import canonical_json
from ashat.common.text import cut, printable
from tasks.checks.scan.packages import Declared
from tasks.checks.scan.versions import Ecosystem

SPECIFICATION = "1.6"
SIZE_LIMIT = 6 * 1024 * 1024
_PLACE_LIMIT = 300
_RELEASE = "release"
_TYPES: dict[Ecosystem, str] = {
    "PyPI": "pypi",
    "npm": "npm",
    "NuGet": "nuget",
    "Maven": "maven",
    "Go": "golang",
    "crates.io": "cargo",
    "RubyGems": "gem",
    "Packagist": "composer",
    "conda": "conda",
    "Debian": "deb",
    "Alpine": "apk",
}
_DISTRIBUTIONS = {"Debian": "debian", "Alpine": "alpine"}


def sbom_of(name: str, version: str, manifest: Manifest, declared: Declared) -> dict[str, Any]:
    """Write the SBOM of a release of that name, whose files are `manifest` and whose packages are `declared`.

    It has at most `SIZE_LIMIT` bytes: beyond that first the places are left out, then the last components.
    """
    components = sorted(_components(declared), key=lambda each: str(each["bom-ref"]))
    document = _document(name, version, manifest, components, complete=not any(declared.findings()))
    if len(canonical_json(document)) <= SIZE_LIMIT:
        return document
    bare = [{key: value for key, value in each.items() if key != "properties"} for each in components]
    while len(canonical_json(document := _document(name, version, manifest, bare, complete=False))) > SIZE_LIMIT:
        bare = bare[: len(bare) * 9 // 10]
    return document


def package_url(ecosystem: Ecosystem, name: str, version: str | None) -> str:
    """Write the package URL of a package (https://github.com/package-url/purl-spec)."""
    namespace, _, last = name.rpartition(":" if ecosystem == "Maven" else "/")
    namespace = _DISTRIBUTIONS.get(ecosystem, namespace)
    number = f"v{version}" if version and ecosystem == "Go" else version
    return PackageURL(_TYPES[ecosystem], namespace or None, last, number).to_string()


def _components(declared: Declared) -> Iterable[dict[str, Any]]:
    pinned = set()
    for package, place in declared.packages.items():
        url = package_url(package.ecosystem, package.name, package.version)
        pinned.add(package_url(package.ecosystem, package.name, None))
        scope = "optional" if package in declared.development else "required"
        yield {**_component(url, package.name, place), "version": package.version, "scope": scope}
    loose: dict[str, dict[str, Any]] = {}
    for place, items in declared.loose.items():
        for ecosystem, name in items:
            if not name or " " in name:
                continue  # words that stand for what comes from an address
            url = package_url(ecosystem, name, None)
            if url not in pinned:
                loose.setdefault(url, _component(url, name, place))
    yield from loose.values()


def _component(url: str, name: str, place: str) -> dict[str, Any]:
    where = {"name": "ashat:declared-in", "value": cut(printable(place), _PLACE_LIMIT)}
    return {"type": "library", "bom-ref": url, "name": printable(name), "purl": url, "properties": [where]}


def _document(
    name: str, version: str, manifest: Manifest, components: list[dict[str, Any]], *, complete: bool
) -> dict[str, Any]:
    release = {
        "type": "application",
        "bom-ref": _RELEASE,
        "name": name,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": manifest.digest}],
    }
    tool = {"type": "application", "name": "ashat-deploy", "version": __version__}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "version": 1,
        "metadata": {"component": release, "tools": {"components": [tool]}},
        "components": components,
        "compositions": [{"aggregate": "unknown" if complete else "incomplete", "assemblies": [_RELEASE]}],
    }
