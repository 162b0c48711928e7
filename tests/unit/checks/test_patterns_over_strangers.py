"""Patterns that run over a release's files and a program's answers, outside the sandbox: no text makes one slow."""

from __future__ import annotations

import time

import pytest

from tasks.checks.scan.credentials import find_secrets
from tasks.checks.scan.exposed_paths import EXPOSED, LISTING, METRICS, TOOLBAR
from tasks.checks.scan.key_files import environment_file, named
from tasks.checks.scan.osv_offline import _FIELD

SIZE = 256 * 1024
TEXTS = {
    name: (piece * (SIZE // len(piece)))[:SIZE]
    for name, piece in {
        "lines": "\n",
        "spaces": " ",
        "tabs and lines": "\t\n",
        "letters": "a",
        "digits": "1",
        "quotes": '"',
        "escapes": '\\"',
        "names": '"name":"\\"name\\":\\"',
        "exports": "export\n\n\n",
        "services": "services:\n \n",
        "titles": "<title> \n",
        "braces": '{"AllowedHosts" ',
        "dots": ".env.",
        "addresses": "a://b:",
        "keys": "password = \n",
        "aws": "aws_secret_access_key ",
        "jwt": "eyJ.",
        "base64": "AKIA0+/=",
        "slashes": "/",
    }.items()
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()

    for pattern in (*EXPOSED.values(), *METRICS.values(), LISTING, TOOLBAR):
        pattern.search(text)
    _FIELD.findall(text.encode())
    environment_file(text)
    named(text)
    find_secrets(text.encode())

    assert time.process_time() - began < 20
