"""What Python's tools write: requirements, lock files of five tools, pyproject.toml, and installed packages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from email.parser import BytesHeaderParser
from posixpath import dirname, join, normpath
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from ashat.common.documents import load_json, load_toml
from tasks.checks.scan.formats.limits import LINES_LIMIT, TEXT_LIMIT
from tasks.checks.scan.formats.markup import load_yaml
from tasks.checks.scan.packages import Declared
from tasks.checks.scan.versions import Ecosystem

REQUIREMENT_LIMIT = 4_096
SETTINGS_LIMIT = 256 * 1024

_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION = re.compile(r"\s--?[A-Za-z].*$")
_EDITABLE = re.compile(r"(-e|--editable)[\s=]*+\S+://")
_INCLUDE = re.compile(r"(-[rc]\s*|--(?:requirement|constraint)[\s=]+)(.+)")
_DEVELOPMENT = {"dev", "develop", "test", "tests", "docs", "lint", "typing"}
_PINNED = re.compile(r"@[0-9a-f]{40}(?:$|[#&])|#(?:[^#]*&)?sha(?:256|384|512)=")
_LOCAL = {"editable", "virtual", "directory", "path"}
_ELSEWHERE = {"git", "url", "vcs", "archive"}


def requirements(path: str, content: bytes, found: Declared) -> None:
    """https://pip.pypa.io/en/stable/reference/requirements-file-format/"""
    for text in _requirements(path, content, found):
        requirement(path, text, found)


def constraints(path: str, content: bytes, found: Declared) -> None:
    """Add the exact versions of a constraints file: it bounds what others ask for, and asks for nothing."""
    bounds = Declared()
    for text in _requirements(path, content, found):
        requirement(path, text, bounds)
    for package in bounds.packages:
        found.add(path, package.ecosystem, package.name, package.version)


def _requirements(path: str, content: bytes, found: Declared) -> Iterator[str]:
    """Yield each requirement of a file, and note the files that it includes."""
    lines = re.sub(r"\\\r?\n", " ", content.decode("utf-8-sig")).splitlines()
    if len(lines) > LINES_LIMIT:
        raise ValueError(f"{len(lines)} lines; at most {LINES_LIMIT} are read")
    for line in lines:
        text = _COMMENT.sub("", line).strip()
        if include := _INCLUDE.match(text):
            named, reader = include[2].strip(), constraints if include[1].lstrip("-")[0] == "c" else requirements
            place = named if "://" in named else normpath(join(dirname(path), named))
            found.included.setdefault(place, (path, reader))
        elif text and (not text.startswith("-") or _EDITABLE.match(text)):
            yield _OPTION.sub("", text)


def requirement(path: str, text: str, found: Declared) -> None:
    """Add one requirement as PEP 508 writes it, whatever its extras and markers."""
    try:
        wanted = Requirement(text if len(text) <= REQUIREMENT_LIMIT else "")
    except InvalidRequirement:
        if "://" in text:
            found.elsewhere(path, "PyPI", address=text)
        elif not re.match(r"\.{0,2}/|\.{1,2}$|\S+\.(whl|zip|tar\.gz)\b", text):
            found.add(path, "PyPI", text, None)
        return
    if wanted.url and _PINNED.search(wanted.url):
        found.elsewhere(path, "PyPI", wanted.name, address=wanted.url)
        return
    exact = [each.version for each in wanted.specifier if each.operator in ("==", "===")]
    found.add(path, "PyPI", wanted.name, exact[0] if len(exact) == 1 and not wanted.url else None)


def toml_lock(path: str, content: bytes, found: Declared) -> None:
    """Add the packages of uv.lock, poetry.lock, pdm.lock and pylock.toml that come from an index.

    The project itself and what comes from a directory are none.
    """
    document = load_toml(content, limit=TEXT_LIMIT)
    for item in [*document.get("package", ()), *document.get("packages", ())]:
        source = item.get("source", {})
        if _LOCAL & (source.keys() | item.keys()) or source.get("type") in ("directory", "file"):
            continue
        elsewhere = _ELSEWHERE & (source.keys() | item.keys()) and "registry" not in source
        if (elsewhere or source.get("type") in _ELSEWHERE) and source.get("type") != "legacy":
            found.elsewhere(path, "PyPI", item["name"], address=str((source, item.get("vcs"), item.get("archive"))))
        else:
            found.add(path, "PyPI", item["name"], item.get("version"), dev=_for_development(item))


def _for_development(item: Mapping[str, Any]) -> bool:
    """Tell whether poetry or pdm has a package in groups for development only."""
    groups = item.get("groups") or ([item["category"]] if "category" in item else [])
    return bool(groups) and set(groups) <= _DEVELOPMENT


def pipfile_lock(path: str, content: bytes, found: Declared) -> None:
    """https://pipenv.pypa.io/en/latest/pipfile.html: each section holds names with `version`, such as `==1.0`."""
    for section, packages in load_json(content, limit=TEXT_LIMIT).items():
        if section == "_meta":
            continue
        for name, item in packages.items():
            version = str(item.get("version", ""))
            if item.get("path") or item.get("file"):
                continue
            found.add(path, "PyPI", name, version.removeprefix("=="), dev=section == "develop")


def pipfile(path: str, content: bytes, found: Declared) -> None:
    """Add what a Pipfile asks for at run time; Pipfile.lock says which versions."""
    _table(path, load_toml(content, limit=TEXT_LIMIT).get("packages", {}), found)


def pyproject(path: str, content: bytes, found: Declared) -> None:
    """Add what a project asks for at run time, as PEP 621 and as Poetry write it; extras are not asked for."""
    document = load_toml(content, limit=TEXT_LIMIT)
    for text in document.get("project", {}).get("dependencies", ()):
        requirement(path, str(text), found)
    _table(path, document.get("tool", {}).get("poetry", {}).get("dependencies", {}), found)
    if path in found.loose or any(where == path for where in found.packages.values()):
        found.direct[path] = "PyPI"


def setup_cfg(path: str, content: bytes, found: Declared) -> None:
    """https://setuptools.pypa.io/en/latest/userguide/declarative_config.html, of which `install_requires` is read."""
    if len(content) > SETTINGS_LIMIT:
        raise ValueError(f"more than {SETTINGS_LIMIT} bytes")
    settings = ConfigParser(interpolation=None, strict=False)
    try:
        settings.read_string(content.decode("utf-8-sig"))
    except ConfigParserError as error:
        raise ValueError(str(error)) from None
    for line in settings.get("options", "install_requires", fallback="").splitlines():
        if text := _COMMENT.sub("", line).strip():
            requirement(path, text, found)
            found.direct[path] = "PyPI"


def _table(path: str, wanted: Mapping[str, Any], found: Declared) -> None:
    for name, value in wanted.items():
        versions = value if isinstance(value, str) else value.get("version", "") if isinstance(value, Mapping) else ""
        if name == "python" or (isinstance(value, Mapping) and {"path", "file"} & value.keys()):
            continue
        exact = re.fullmatch(r"={0,3}\s*(\d[\w.!+]*)", versions)
        found.add(path, "PyPI", name, exact[1] if exact else None)


def metadata(path: str, content: bytes, found: Declared) -> None:
    """https://packaging.python.org/en/latest/specifications/core-metadata/, of which two headers are needed."""
    headers = BytesHeaderParser().parsebytes(re.split(rb"\r?\n\r?\n", content, maxsplit=1)[0])
    if headers["Name"] is None:
        raise ValueError("no header Name")
    found.add(path, "PyPI", str(headers["Name"]).strip(), str(headers["Version"] or "").strip())


def conda_environment(path: str, content: bytes, found: Declared) -> None:
    """https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html"""
    document = load_yaml(content)
    wanted = document.get("dependencies") if isinstance(document, dict) else None
    for item in wanted if isinstance(wanted, list) else ():
        if isinstance(item, dict):
            for text in item.get("pip", ()):
                requirement(path, str(text), found)
            continue
        # `name=1.2=build` and `name==1.2` are exact; `name=1.2` is the beginning of a version.
        name, _, rest = re.sub(r"^\S+::|\s", "", str(item)).partition("=")
        exact = re.fullmatch(r"=([^=<>|,*]+)|([^=<>|,*]+)=[^=]+", rest)
        name = re.split(r"[<>!~\[]", name)[0]
        found.add(path, "conda", name, (exact[1] or exact[2]) if exact else None)


def conda_lock(path: str, content: bytes, found: Declared) -> None:
    """Add what conda-lock.yml lists, each with its manager."""
    document = load_yaml(content)
    if not isinstance(document, dict):
        raise TypeError("no mapping")
    for item in document["package"]:
        system: Ecosystem = "PyPI" if item.get("manager") == "pip" else "conda"
        found.add(path, system, item["name"], item["version"], dev=item.get("category") in _DEVELOPMENT)


def pixi_lock(path: str, content: bytes, found: Declared) -> None:
    """Add what pixi.lock lists: conda's by the name of their file, PyPI's by name and version."""
    document = load_yaml(content)
    if not isinstance(document, dict):
        raise TypeError("no mapping")
    for item in document["packages"]:
        if "pypi" in item and "name" in item:
            found.add(path, "PyPI", item["name"], item.get("version"))
        elif address := item.get("conda") or item.get("pypi"):
            parts = _file_name(str(address)).rsplit("-", 2)
            found.add(path, "conda" if "conda" in item else "PyPI", parts[0], parts[1] if len(parts) == 3 else None)


def _file_name(address: str) -> str:
    return re.sub(r"\.(conda|tar\.bz2)$", "", address.rpartition("/")[2])


def conda_meta(path: str, content: bytes, found: Declared) -> None:
    """Add a package that conda installed: its record in `conda-meta`."""
    document = load_json(content, limit=TEXT_LIMIT)
    found.add(path, "conda", document["name"], document["version"])
