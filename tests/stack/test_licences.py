"""`deploy licences`: a key goes to its owner only, a file is kept whole or not at all, who is revoked gets nothing."""

from __future__ import annotations

import json
import stat

import httpx
import pytest

from ashat.common.identifiers import check_licence_key, licence_id, new_key
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]
OMEGA = ("--omega", "omega")


def listed(stack: Stack) -> dict[str, str]:
    """The status of each licence, by its id."""
    found = json.loads(stack.deploy("licences", "list", "--json", *OMEGA).stdout)["licences"]
    return {each["id"]: each["status"] for each in found}


def status(stack: Stack, key: str) -> int:
    """What OMEGA answers to a Mainframe that asks with `key`."""
    url = f"{stack.omega.url}/v1/mainframe/release"
    return httpx.get(url, headers={"Authorization": f"Licence {key}"}, timeout=60).status_code


def test_a_licence_from_its_making_to_its_end(stack: Stack) -> None:
    out = stack.source.parent / "customer.key"
    made = stack.deploy("licences", "create", "Baker", "--expires", "2031-12-31", "--out", str(out), *OMEGA)
    key = check_licence_key(out.read_text().strip())
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert key not in made.stdout + made.stderr
    assert licence_id(key) in made.stderr
    assert status(stack, key) in (200, 204)

    before = listed(stack)
    again = stack.deploy("licences", "create", "Baker", "--out", str(out), *OMEGA, check=False)
    assert again.returncode != 0
    assert "is there already" in again.stderr
    assert (listed(stack), out.read_text().strip()) == (before, key)
    printed = stack.deploy("licences", "create", "Baker", *OMEGA).stdout
    other = check_licence_key(printed.strip())

    named = stack.deploy("licences", "renew", "Baker", "--no-end", *OMEGA, check=False)
    assert "has 2 licences called 'Baker'; say which by its id: " in named.stderr
    assert "without an end" in stack.deploy("licences", "renew", licence_id(key), "--no-end", *OMEGA).stdout
    shown = json.loads(stack.deploy("licences", "show", licence_id(key), "--json", *OMEGA).stdout)
    assert (shown["expires"], shown["mainframe"]["id"]) == (None, licence_id(key))

    unsure = stack.deploy("licences", "revoke", licence_id(key), *OMEGA, check=False)
    assert "Say --yes" in unsure.stderr
    assert status(stack, key) in (200, 204)
    for each in (key, other):
        stack.deploy("licences", "revoke", licence_id(each), "--yes", *OMEGA)
        assert status(stack, each) == 403
    told = stack.deploy("licences", "revoke", new_key(), "--yes", *OMEGA, check=False)
    assert "That is a licence's key" in told.stderr
    assert "RACORE-" not in told.stderr
    assert all(each not in stack.omega.log() for each in (key, other))


def test_a_file_is_kept_whole_or_not_at_all(stack: Stack) -> None:
    file, keys = stack.source.parent / "licences.csv", [new_key() for _ in range(3)]
    lines = ["key,name,expires", *(f'{key},"Mill, {n}",2031-01-01' for n, key in enumerate(keys))]
    file.write_text("\n".join([*lines, f"{keys[0]},again", "RACORE-1,x"]))
    before = listed(stack)
    refused = stack.deploy("licences", "import", str(file), *OMEGA, check=False)
    assert refused.returncode != 0
    assert "Line 5: it has the key of line 2. Line 6: A licence key has the form" in refused.stderr
    assert not any(key in refused.stderr for key in keys)
    assert listed(stack) == before

    file.write_text("\n".join(lines))
    assert stack.deploy("licences", "import", str(file), *OMEGA).stdout.count(" new") == 3
    assert stack.deploy("licences", "import", str(file), *OMEGA).stdout.count(" renewed") == 3
    for key in keys:
        stack.deploy("licences", "revoke", licence_id(key), "--yes", *OMEGA)
    assert "revoked before" in stack.deploy("licences", "import", str(file), *OMEGA).stdout
    assert all(listed(stack)[licence_id(key)] == "revoked" for key in keys)
    for text in (b"\xff\xfe", b""):
        file.write_bytes(text)
        assert stack.deploy("licences", "import", str(file), *OMEGA, check=False).returncode != 0
