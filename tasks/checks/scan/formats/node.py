"""What the tools of Node.js write: npm, pnpm, Yarn, Bun, and the packages that are installed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ashat.common.documents import load_json
from tasks.checks.scan.formats.limits import LINES_LIMIT, TEXT_LIMIT
from tasks.checks.scan.formats.markup import load_yaml
from tasks.checks.scan.packages import Declared

_ALIAS = re.compile(r"npm:((?:@[^@/]+/)?[^@]+)@([^@]+)")
_SPEC = re.compile(r"((?:@[^@/]+/)?[^@/]+)@(.*)", re.DOTALL)
_HERE = re.compile(r"(file|link|workspace|portal|patch|catalog):|\.{0,2}/")
_LINE_LIMIT = 64 * 1024
_EXACT = re.compile(r"=?v?\d+\.\d+\.\d+(-[\w.-]+)?(\+[\w.-]+)?", re.ASCII)
_FOREIGN = re.compile(r"(git(\+\w+)?|github|gitlab|bitbucket|https?):|[\w.-]+/[\w.-]+(#|$)")
_PNPM_KEY = re.compile(r"/?((?:@[^@/]+/)?[^@/(]+)[@/](\d[^_(/]*)")
_STRINGS_OR_COMMAS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|,(?=\s*+[}\]])', re.DOTALL)


def npm_lock(path: str, content: bytes, found: Declared) -> None:
    """https://docs.npmjs.com/cli/configuring-npm/package-lock-json: `packages` since version 2, before that a tree."""
    document = load_json(content, limit=TEXT_LIMIT)
    if "packages" in document:
        for key, item in document["packages"].items():
            _, inside, name = key.rpartition("node_modules/")
            if inside and not item.get("link"):
                foreign = _FOREIGN.match(str(item.get("resolved", ""))) and not _registry(str(item["resolved"]))
                dev = bool(item.get("dev") or item.get("devOptional"))
                found.add(path, "npm", item.get("name") or name, None if foreign else item.get("version"), dev=dev)
        return
    left: list[dict[str, Any]] = [document.get("dependencies", {})]
    while left:
        for name, item in left.pop().items():
            left.append(item.get("dependencies", {}))
            version = str(item.get("version", ""))
            if alias := _ALIAS.fullmatch(version):
                found.add(path, "npm", alias[1], alias[2], dev=bool(item.get("dev")))
            elif not version.startswith("file:"):
                found.add(path, "npm", name, version, dev=bool(item.get("dev")))


def _registry(address: str) -> bool:
    """Tell whether an address is one of a registry: it ends in the archive that npm makes."""
    return address.startswith("http") and bool(re.search(r"/-/[^/]+\.tgz([#?]|$)|/download/", address))


def package_json(path: str, content: bytes, found: Declared) -> None:
    """Add what a project asks for at run time; a lock file says which versions."""
    document = load_json(content, limit=TEXT_LIMIT)
    for table in ("dependencies", "optionalDependencies"):
        for key, value in dict(document.get(table) or {}).items():
            alias = _ALIAS.fullmatch(str(value))
            name, wanted = (alias[1], alias[2]) if alias else (key, str(value))
            if not _HERE.match(wanted):
                found.add(path, "npm", name, wanted.lstrip("=") if _EXACT.fullmatch(wanted) else None)
    if path in found.loose or any(where == path for where in found.packages.values()):
        found.direct[path] = "npm"


def installed(path: str, content: bytes, found: Declared) -> None:
    """Add a package below node_modules, by its own package.json."""
    document = load_json(content, limit=TEXT_LIMIT)
    if "name" in document and "version" in document:
        found.add(path, "npm", document["name"], document["version"])


def yarn_lock(path: str, content: bytes, found: Declared) -> None:
    """Read Yarn's lock file: its own format in version 1, YAML with `__metadata` since version 2."""
    if re.search(rb"^__metadata:", content, re.MULTILINE):
        _berry(path, load_yaml(content), found)
        return
    for keys, version, resolved in _blocks(content.decode("utf-8-sig")):
        specs = [found_spec for key in keys if (found_spec := _SPEC.fullmatch(key))]
        if not specs:
            raise ValueError(f"no package: {keys[0][:60]!r}")
        name, wanted = specs[0].groups()
        if alias := re.fullmatch(r"npm:((?:@[^@/]+/)?[^@]+)(@.*)?", wanted):
            name = alias[1]
        if _HERE.match(wanted) and not resolved:
            continue
        foreign = _FOREIGN.match(wanted) or resolved.startswith("git")
        found.add(path, "npm", name, None if foreign else version)


def _blocks(text: str) -> Iterator[tuple[list[str], str, str]]:
    """Yield each entry of a lock file of Yarn 1: its keys, its version, where it comes from."""
    keys: list[str] = []
    version = resolved = ""
    lines = text.splitlines()
    if len(lines) > 10 * LINES_LIMIT:
        raise ValueError(f"{len(lines)} lines; at most {10 * LINES_LIMIT} are read")
    for line in [*lines, "end:"]:
        if len(line) > _LINE_LIMIT:
            raise ValueError(f"a line of {len(line)} characters")
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith(" "):
            if keys:
                yield keys, version, resolved
            keys = [key.strip().strip('"') for key in line.strip().removesuffix(":").split(",")]
            version = resolved = ""
        elif field := re.match(r'  "?(version|resolved)"? +"?([^"]*)"?', line):
            version, resolved = (field[2], resolved) if field[1] == "version" else (version, field[2])


def _berry(path: str, document: object, found: Declared) -> None:
    for key, item in _mapping(document).items():
        if key == "__metadata" or not isinstance(item, dict):
            continue
        resolution = str(item.get("resolution", ""))
        spec = _SPEC.fullmatch(resolution)
        if spec is None:
            raise ValueError(f"no resolution of {key[:60]!r}")
        if spec[2].startswith("npm:"):
            found.add(path, "npm", spec[1], spec[2].removeprefix("npm:").partition("::")[0])
        elif patched := re.match(r"patch:.*@npm%3A([^#]+)#", spec[2]):
            found.add(path, "npm", spec[1], patched[1])
        elif not _HERE.match(spec[2]):
            found.elsewhere(path, "npm", spec[1], address=spec[2])


def pnpm_lock(path: str, content: bytes, found: Declared) -> None:
    """https://github.com/pnpm/spec/blob/master/lockfile/: the keys of `packages` are names with versions."""
    for key, value in _mapping(_mapping(load_yaml(content)).get("packages") or {}).items():
        item = value if isinstance(value, dict) else {}
        dev = item.get("dev") == "true"
        if "name" in item and "version" in item:
            found.add(path, "npm", item["name"], item["version"], dev=dev)
        elif spec := _PNPM_KEY.match(key):
            found.add(path, "npm", spec[1], spec[2], dev=dev)
        elif "file:" not in key and "link:" not in key:
            found.elsewhere(path, "npm", (_SPEC.match(key) or ["", ""])[1], address=key)


def bun_lock(path: str, content: bytes, found: Declared) -> None:
    """https://bun.sh/docs/install/lockfile: JSON, with commas before brackets, of `name@version`, …"""
    text = _STRINGS_OR_COMMAS.sub(lambda match: "" if match[0] == "," else match[0], content.decode("utf-8-sig"))
    for item in load_json(text, limit=TEXT_LIMIT)["packages"].values():
        spec = _SPEC.fullmatch(item[0])
        if spec is None:
            raise ValueError(f"no package: {str(item[0])[:60]!r}")
        if _EXACT.fullmatch(spec[2]):
            found.add(path, "npm", spec[1], spec[2])
        elif not _HERE.match(spec[2]):
            found.elsewhere(path, "npm", spec[1], address=spec[2])


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("no mapping")
    return value
