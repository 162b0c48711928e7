"""What the tools of the Java virtual machine write: Maven's pom.xml, Gradle's lock files, and jars' own coordinates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from tasks.checks.scan.formats.limits import LINES_LIMIT
from tasks.checks.scan.formats.markup import load_xml, text_of
from tasks.checks.scan.packages import Declared

_PROPERTY = re.compile(r"\$\{([\w.-]+)\}")
_LINE = re.compile(r"([^:=#\s]+):([^:=\s]+):([^:=\s]+)=(.*)")
_ROUNDS = 5
_VALUE_LIMIT = 256


def pom(path: str, content: bytes, found: Declared) -> None:
    """https://maven.apache.org/pom.html: the dependencies at run time, with the properties of the file filled in."""
    root = load_xml(content)
    if root.tag != "project":
        raise ValueError("no project")
    properties = _properties(root)
    managed = {
        (_value(item, "groupId", properties), _value(item, "artifactId", properties)): _value(
            item, "version", properties
        )
        for item in root.iterfind("./dependencyManagement/dependencies/dependency")
    }
    for item in root.iterfind("./dependencies/dependency"):
        group, artifact = _value(item, "groupId", properties), _value(item, "artifactId", properties)
        version = _value(item, "version", properties) or managed.get((group, artifact), "")
        dev = text_of(item, "scope") in ("test", "provided")
        if not (dev and not version):
            found.add(path, "Maven", f"{group}:{artifact}", _exact(version), dev=dev)
            found.direct[path] = "Maven"


def installed_pom(path: str, content: bytes, found: Declared) -> None:
    """Add an artifact by its own pom, which a jar holds."""
    root = load_xml(content)
    properties = _properties(root)
    group, artifact, version = (properties.get(f"project.{key}", "") for key in ("groupId", "artifactId", "version"))
    found.add(path, "Maven", f"{group}:{artifact}", _fill(version, properties))


def _properties(root: Element) -> dict[str, str]:
    found = {
        child.tag: (child.text or "").strip()
        for group in root.iterfind("./properties")
        for child in group
        if isinstance(child.tag, str)
    }
    for key in ("groupId", "artifactId", "version"):
        value = text_of(root, key) or text_of(root, f"parent/{key}")
        found[f"project.{key}"] = found[f"pom.{key}"] = value
    if parent := root.find("parent"):
        found["project.parent.version"] = text_of(parent, "version")
    return found


def _value(item: Element, name: str, properties: Mapping[str, str]) -> str:
    return _fill(text_of(item, name), properties)


def _fill(text: str, properties: Mapping[str, str]) -> str:
    for _ in range(_ROUNDS):
        filled = _PROPERTY.sub(lambda match: properties.get(match[1], match[0]), text[:_VALUE_LIMIT])
        if filled == text:
            break
        text = filled
    return text


def _exact(version: str) -> str:
    bare = re.fullmatch(r"\[?([^\[\](),$]+)\]?", version)
    return bare[1] if bare else ""


def pom_properties(path: str, content: bytes, found: Declared) -> None:
    """Add a jar by the coordinates that Maven writes into it."""
    lines = (line.partition("=") for line in content.decode("utf-8", "replace").splitlines()[:1_000])
    values = {key.strip(): value.strip() for key, _, value in lines}
    found.add(path, "Maven", f"{values['groupId']}:{values['artifactId']}", values["version"])


def gradle_lock(path: str, content: bytes, found: Declared) -> None:
    """https://docs.gradle.org/current/userguide/dependency_locking.html: group:artifact:version=configurations."""
    lines = content.decode("utf-8-sig").splitlines()
    if len(lines) > LINES_LIMIT:
        raise ValueError(f"{len(lines)} lines; at most {LINES_LIMIT} are read")
    for line in lines:
        if locked := _LINE.fullmatch(line.strip()):
            uses = [use for use in locked[4].split(",") if use]
            dev = bool(uses) and all(use.lower().startswith("test") for use in uses)
            found.add(path, "Maven", f"{locked[1]}:{locked[2]}", locked[3], dev=dev)
