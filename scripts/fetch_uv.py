"""Puts uv's executable in place with nothing but the standard library: `fetch_uv.py VERSION TARGET`.

For a Python that has neither venv nor pip. The wheel comes from the package index (`UV_DEFAULT_INDEX` or
`PIP_INDEX_URL`, else PyPI), and has to be one of the wheels named here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import sys
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import urljoin

# (system, machine, C library) -> sha256 of the wheel of uv 0.13.9 for it, from https://pypi.org/project/uv/#files
WHEELS = {
    ("Linux", "x86_64", "glibc"): "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ("Linux", "x86_64", ""): "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    ("Linux", "aarch64", "glibc"): "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
    ("Linux", "aarch64", ""): "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ("Darwin", "x86_64", ""): "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ("Darwin", "arm64", ""): "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
}


def main() -> None:
    """Fetch, check, unpack; or say why not."""
    version, target = sys.argv[1], Path(sys.argv[2])
    here = (platform.system(), platform.machine(), platform.libc_ver()[0])
    digest = WHEELS.get(here)
    if digest is None:
        sys.exit(f"No uv is known for {' '.join(here)}. Install uv {version} yourself: https://docs.astral.sh/uv/")
    try:
        wheel = fetch(version, digest)
    except (OSError, ValueError, LookupError) as error:
        sys.exit(f"uv {version} could not be fetched: {error}. Install uv, or Python's venv and pip, and try again.")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archive.read(name))
    target.chmod(0o755)


def fetch(version: str, digest: str) -> bytes:
    """The wheel of that version and sha256, from the package index.

    Raises:
        OSError: the index does not answer.
        LookupError: it does not have that wheel.
        ValueError: what it sent is something else.
    """
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"
    page = f"{index.rstrip('/')}/uv/"
    wanted = urllib.request.Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(wanted, timeout=60) as answer:
        files = json.load(answer)["files"]
    address = next((file["url"] for file in files if file["hashes"].get("sha256") == digest), None)
    if address is None:
        raise LookupError(f"{page} does not have the wheel of uv {version} that is pinned here")
    with urllib.request.urlopen(urljoin(page, address), timeout=300) as answer:
        wheel: bytes = answer.read()
    if hashlib.sha256(wheel).hexdigest() != digest:
        raise ValueError(f"{address} does not have the sha256 that is pinned here")
    return wheel


if __name__ == "__main__":
    main()
