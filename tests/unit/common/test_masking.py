"""What is shown of a program's output holds no secret that can be told as one, and costs a bound."""

import time

import pytest

from ashat.common.masking import LINE_BYTES, mask_secrets


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("connecting to postgresql://raos:s3cr3t@db:5432/raos", "connecting to postgresql://***@db:5432/raos"),
        ("PASSWORD=hunter22 user=kim", "PASSWORD=*** user=kim"),
        ("{'api_key': 'abc def', 'n': 1}", "{'api_key': ***, 'n': 1}"),
        ('"client_secret" : "abc"', '"client_secret" : ***'),
        ("Authorization: Bearer eyJhbGciOi.J9-x", "Authorization: Bearer ***"),
        ("licence RACORE-0123ABCD-0123ABCD-0123ABCD", "licence -"),
        ("told 0pen-sesame aloud", "told *** aloud"),
        ("8 modules loaded, 3 passed", "8 modules loaded, 3 passed"),
    ],
)
def test_secrets_are_hidden_and_nothing_else(line: str, shown: str) -> None:
    assert mask_secrets(line, {"0pen-sesame", "", "x"}) == shown


@pytest.mark.parametrize("piece", ["pass", 'pass="', "pass= ", "://a", "bearer a", "token:", "a", '"'])
def test_no_line_takes_long(piece: str) -> None:
    began = time.process_time()
    mask_secrets(piece * LINE_BYTES)
    assert time.process_time() - began < 5
