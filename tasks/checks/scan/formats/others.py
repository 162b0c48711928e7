"""What the tools of Go, Rust, Ruby and PHP write, and which packages Debian and Alpine have installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from posixpath import dirname, join

from ashat.common.documents import load_json, load_toml
from tasks.checks.scan.formats.limits import LINES_LIMIT, TEXT_LIMIT
from tasks.checks.scan.packages import Declared

_GEM = re.compile(r" {4}([\w.-]+) \(([^)]+)\)")
_PLATFORM = re.compile(r"-(x86_64|x86|x64|aarch64|arm64|arm|i[36]86|universal|java|jruby|mswin\d*|mingw\d*|ruby)\b.*")
_GO_LINE = re.compile(r"([^\s()]+)\s+(v[^\s()]+)")
_REPLACED = re.compile(r"([^\s()]+)(?:\s+(v\S+))?\s+=>\s+(\S+)(?:\s+(v\S+))?")
_FULL_LIST_SINCE = (1, 17)
_PLATFORM_PACKAGE = re.compile(r"php(-\w+)?|hhvm|(ext|lib)-.+|composer(-.+)?")


def _lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8-sig", "replace").splitlines()
    if len(lines) > 10 * LINES_LIMIT:
        raise ValueError(f"{len(lines)} lines; at most {10 * LINES_LIMIT} are read")
    return lines


def go_mod(path: str, content: bytes, found: Declared) -> None:
    """https://go.dev/ref/mod#go-mod-file: since Go 1.17 every module of the build; before, go.sum has the others."""
    required: list[tuple[str, str | None]] = []
    replaced: dict[tuple[str, str | None], tuple[str, str | None]] = {}
    since = (0, 0)
    for verb, rest in _directives(content):
        if verb == "go" and (version := re.match(r"(\d+)\.(\d+)", rest)):
            since = (int(version[1]), int(version[2]))
        elif verb == "require" and (module := _GO_LINE.fullmatch(rest)):
            required.append((module[1], module[2]))
        elif verb == "replace" and (change := _REPLACED.fullmatch(rest)):
            replaced[change[1], change[2]] = change[3], change[4]
    for module_version in required:
        by_name = replaced.get((module_version[0], None), module_version)
        name, exact = replaced.get(module_version, by_name)
        if exact:
            found.add(path, "Go", name, exact)
    if since < _FULL_LIST_SINCE:
        found.included.setdefault(join(dirname(path), "go.sum"), (path, go_sum))


def _directives(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield each directive of a go.mod with its verb, also those that stand in brackets after one verb."""
    block = ""
    for raw in _lines(content):
        line = raw.partition("//")[0].strip()
        if line.endswith("("):
            block = line.removesuffix("(").strip()
        elif line == ")":
            block = ""
        elif line:
            verb, _, rest = (block, "", line) if block else line.partition(" ")
            yield verb, rest.strip()


def go_sum(path: str, content: bytes, found: Declared) -> None:
    """Add the modules whose source go.sum knows; of the others it knows only what they require."""
    for line in _lines(content):
        name, _, rest = line.partition(" ")
        version = rest.partition(" ")[0]
        if version and not version.endswith("/go.mod"):
            found.add(path, "Go", name, version)


def go_vendor(path: str, content: bytes, found: Declared) -> None:
    """https://go.dev/ref/mod#go-mod-vendor: `# module version` before the packages of each."""
    for line in _lines(content):
        if line.startswith("# ") and (item := _GO_LINE.match(line[2:])):
            replaced = re.search(r"=>\s+(\S+)\s+(v\S+)", line)
            found.add(path, "Go", *(replaced or item).groups())


def cargo_lock(path: str, content: bytes, found: Declared) -> None:
    """https://doc.rust-lang.org/cargo/guide/cargo-toml-vs-cargo-lock.html; the workspace's own have no source."""
    for item in load_toml(content, limit=TEXT_LIMIT).get("package", ()):
        source = str(item.get("source", ""))
        if source.startswith(("registry+", "sparse+")):
            found.add(path, "crates.io", item["name"], item["version"])
        elif source:
            found.elsewhere(path, "crates.io", item["name"], address=source)


def cargo_toml(path: str, content: bytes, found: Declared) -> None:
    """Add what a crate asks for at run time, wherever its Cargo.toml says so."""
    document = load_toml(content, limit=TEXT_LIMIT)
    tables = [document.get("dependencies", {}), document.get("workspace", {}).get("dependencies", {})]
    tables += [each.get("dependencies", {}) for each in document.get("target", {}).values()]
    for table in tables:
        for key, item in table.items():
            wanted = item if isinstance(item, dict) else {"version": item}
            if "path" in wanted or wanted.get("workspace"):
                continue
            exact = re.fullmatch(r"=\s*(\d+\.\d+\.\d+\S*)", str(wanted.get("version", "")))
            found.add(path, "crates.io", wanted.get("package", key), exact[1] if exact else None)


def gemfile_lock(path: str, content: bytes, found: Declared) -> None:
    """https://bundler.io/man/bundle-lock.1.html: gems under the section that says where they come from."""
    section = ""
    for line in _lines(content):
        if line and not line.startswith(" "):
            section = line.strip()
        elif gem := _GEM.fullmatch(line):
            if section == "GEM":
                found.add(path, "RubyGems", gem[1], _PLATFORM.sub("", gem[2]))
            elif section == "GIT":
                found.elsewhere(path, "RubyGems", gem[1])


def gemfile(path: str, content: bytes, found: Declared) -> None:
    """Add the gems that a Gemfile names outside of groups for development."""
    groups: list[bool] = []
    for raw in _lines(content):
        line = raw.partition("#")[0].strip()
        if re.match(r"(group|source|platforms?|git|path|install_if)\b.*\bdo\b", line):
            groups.append(bool(re.match(r"group\s.*:(development|test)", line)))
        elif line == "end" and groups:
            groups.pop()
        elif (gem := re.match(r"gem\s*\(?\s*['\"]([\w.-]+)['\"](.*)", line)) and not any(groups):
            exact = re.match(r"\s*,\s*['\"]=?\s*(\d[\w.]*)['\"]\s*(?!,\s*['\"])", gem[2])
            if not re.search(r"\bpath:|:path\b", gem[2]):
                found.add(path, "RubyGems", gem[1], exact[1] if exact else None)


def gemspec(path: str, content: bytes, found: Declared) -> None:
    """Add a gem that RubyGems installed: the stub line at the head of its specification."""
    stub = re.search(r"^# stub: (\S+) (\S+) ", content[:4096].decode("utf-8", "replace"), re.MULTILINE)
    if stub is None:
        raise ValueError("no stub line")
    found.add(path, "RubyGems", stub[1], stub[2])


def composer_lock(path: str, content: bytes, found: Declared) -> None:
    """https://getcomposer.org/doc/01-basic-usage.md; vendor/composer/installed.json lists what is installed alike."""
    document = load_json(content, limit=TEXT_LIMIT)
    packages = document if isinstance(document, list) else document["packages"]
    development = set(() if isinstance(document, list) else document.get("dev-package-names", ()))
    for item, dev in [
        *((item, item["name"] in development) for item in packages),
        *((item, True) for item in (() if isinstance(document, list) else document.get("packages-dev") or ())),
    ]:
        found.add(path, "Packagist", item["name"], item["version"], dev=dev)


def composer_json(path: str, content: bytes, found: Declared) -> None:
    """Add what a project asks for at run time, but the platform itself."""
    for name, wanted in dict(load_json(content, limit=TEXT_LIMIT).get("require") or {}).items():
        if not _PLATFORM_PACKAGE.fullmatch(name):
            exact = re.fullmatch(r"=?v?\d+\.\d+\.\d+(\.\d+)?", str(wanted))
            found.add(path, "Packagist", name, str(wanted).lstrip("=v") if exact else None)


def _paragraphs(content: bytes, ends: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each paragraph, whose names end with `ends`."""
    fields: dict[str, str] = {}
    for line in [*_lines(content), ""]:
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            key, _, value = line.partition(ends)
            fields.setdefault(key, value.strip())


def debian_status(path: str, content: bytes, found: Declared) -> None:
    """Add what dpkg has installed: https://manpages.debian.org/dpkg-query"""
    for item in _paragraphs(content, ":"):
        if "Package" in item and item.get("Status", "install ok installed").endswith(" installed"):
            found.add(path, "Debian", item["Package"], item.get("Version"))


def alpine_installed(path: str, content: bytes, found: Declared) -> None:
    """Add what apk has installed: https://wiki.alpinelinux.org/wiki/Apk_spec"""
    for item in _paragraphs(content, ":"):
        if "P" in item:
            found.add(path, "Alpine", item["P"], item.get("V"))
