"""A manifest is read once as long as it is remembered, and what is remembered has a limit."""

from __future__ import annotations

import hashlib

import pytest

from ashat.bundle.manifest import FILE_MODE, FileEntry, Manifest
from ashat.bundle.parsed import ParsedManifests
from ashat.errors import ManifestError


def manifest(name: str, files: int = 1) -> Manifest:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Manifest.from_files(FileEntry(f"{name}{number}", 1, FILE_MODE, digest) for number in range(files))


def test_the_same_manifest_is_read_once() -> None:
    parsed, one, other = ParsedManifests(), manifest("a"), manifest("b")
    first = parsed.parse(one.canonical, one.digest)
    assert first == one
    assert parsed.parse(other.canonical, other.digest) == other
    assert parsed.parse(one.canonical, one.digest) is first


def test_those_asked_for_last_are_remembered_as_far_as_the_limit_goes() -> None:
    one, other, third, large = manifest("a"), manifest("b"), manifest("c"), manifest("d", files=9)
    parsed = ParsedManifests(2 * len(one.canonical))
    first, second = parsed.parse(one.canonical, one.digest), parsed.parse(other.canonical, other.digest)
    assert parsed.parse(one.canonical, one.digest) is first
    parsed.parse(third.canonical, third.digest)
    assert parsed.parse(one.canonical, one.digest) is first
    assert parsed.parse(other.canonical, other.digest) is not second
    assert parsed.parse(large.canonical, large.digest) is not parsed.parse(large.canonical, large.digest)


def test_what_breaks_a_rule_is_refused_each_time() -> None:
    parsed, raw = ParsedManifests(), b'{"format":"ashat-bundle/1","modules":{}}'
    for _ in range(2):
        with pytest.raises(ManifestError):
            parsed.parse(raw, hashlib.sha256(raw).hexdigest())
