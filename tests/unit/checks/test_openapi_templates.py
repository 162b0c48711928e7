"""Templates of a program's OpenAPI document: what they stand for, at a cost that grows with their length only."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.checks.kit.openapi import PATHS_LIMIT, Document, Template


def document(**contents: Any) -> Document:
    return Document("/openapi.json", "0" * 64, "3.1", contents)


@pytest.mark.parametrize(
    ("template", "path", "fits"),
    [
        ("/items/{item}", "/items/7", True),
        ("/items/{item}", "/items/", False),
        ("/items/{item}", "/items/7/8", False),
        ("/items/{a/b}", "/items/7", True),
        ("/{a}-{b}.json", "/x-y.json", True),
        ("/{a}-{b}.json", "/x-.json", False),
        ("/{a}{b}", "/xy", True),
        ("/{a}{b}", "/x", False),
        ("/a{x}a", "/aa", False),
        ("/a{x}a", "/aba", True),
        ("/{x}aa", "/aaa", True),
        ("/{x}", "/{x}", True),
        ("/a.b", "/axb", False),
    ],
)
def test_a_template_stands_for_a_path_or_not(template: str, path: str, fits: bool) -> None:
    assert Template(template).stands_for(path) is fits


_PIECES = st.lists(st.sampled_from(["{x}", "{y}", "a", "b", "aa", "/"]), max_size=8).map("".join)


@given(_PIECES, st.text(st.sampled_from("ab/"), max_size=10))
def test_a_template_stands_for_what_a_pattern_of_it_would(template: str, path: str) -> None:
    pattern = "[^/]+".join(re.escape(part) for part in re.split(r"\{[^{}]*\}", template))
    assert Template(template).stands_for(path) == (re.fullmatch(pattern, path) is not None)


@pytest.mark.parametrize("template", ["/" + "{x}" * 400, "/" + "{x}a" * 400, "/{x}" + "a{x}" * 300 + "b", "{" * 4000])
def test_a_template_of_many_parameters_takes_time_by_its_length(template: str) -> None:
    began = time.process_time()
    for _ in range(100):
        Template(template).stands_for("/" + "a" * 1000 + "!")
    assert time.process_time() - began < 20


def test_the_variables_of_a_server_do_not_multiply() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    variables = {name: {"default": f"{{{after}}}" * 100} for name, after in pairwise(letters)}
    variables["z"] = {"default": "z" * 1_000_000}
    servers = [
        {"url": "/{a}" * 1_000, "variables": variables},
        {"url": "/{v}/x", "variables": {"v": {"default": "v1"}}},
    ]
    found = document(servers=servers, paths={"/items/{item}": {}})

    assert found.find("/v1/x/items/7") == ("paths", "/items/{item}")
    assert found.find("/items/7") == ("paths", "/items/{item}")
    assert found.find("/v2/x/items/7") is None


def test_more_servers_and_paths_than_anybody_means_are_looked_through_in_time() -> None:
    paths = {"/" + "{x}a" * 20 + str(number): {} for number in range(PATHS_LIMIT)}
    found = document(servers=[{"url": f"/{'p' * number}"} for number in range(5_000)], paths=paths)

    began = time.process_time()
    for _ in range(3):
        found.find("/" + "p" * 15 + "/" + "aa" * 400)
    assert time.process_time() - began < 20
