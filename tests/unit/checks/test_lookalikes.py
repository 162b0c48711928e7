"""Names that are one letter from a widely known one are pointed out; real names are not."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tasks.checks.scan.lookalikes import lookalikes, resembled
from tasks.checks.scan.packages import Declared
from tasks.checks.scan.popular import POPULAR, REAL
from tasks.checks.scan.versions import Ecosystem

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("ecosystem", "name", "known"),
    [
        ("PyPI", "reqests", "requests"),
        ("PyPI", "Reqeusts", "requests"),
        ("PyPI", "djangoo", "django"),
        ("PyPI", "charset_normalizr", "charset-normalizer"),
        ("npm", "loadash", "lodash"),
        ("npm", "expresss", "express"),
        ("npm", "supports-colour", "supports-color"),
        ("NuGet", "Newtonsoft.Jsn", "newtonsoft.json"),
        ("crates.io", "rustdecimal", "rust_decimal"),
        ("RubyGems", "nokogirl", "nokogiri"),
        ("Packagist", "monolog/monlog", "monolog/monolog"),
        ("Go", "github.com/sirupsen/logrsu", "github.com/sirupsen/logrus"),
        ("Maven", "org.apache.logging.log4j:log4j-cor", "org.apache.logging.log4j:log4j-core"),
    ],
)
def test_a_name_one_letter_off_is_pointed_out(ecosystem: Ecosystem, name: str, known: str) -> None:
    assert resembled(ecosystem, name) == known


@pytest.mark.parametrize("ecosystem", list(POPULAR))
def test_no_widely_known_name_is_taken_for_another(ecosystem: Ecosystem) -> None:
    assert [name for name in POPULAR[ecosystem] | REAL.get(ecosystem, frozenset()) if resembled(ecosystem, name)] == []


def test_names_of_real_lock_files_raise_no_alarm() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))
    assert [item["name"] for item in lock["package"] if resembled("PyPI", item["name"])] == []
    for name in ("attr", "boto", "redis", "rediss-py", "a" * 10_000, "six", "sox", "@types/node", "preact", "vue"):
        assert resembled("npm" if name in ("@types/node", "preact", "vue") else "PyPI", name) == "", name


def test_the_finding_names_both_and_where_once() -> None:
    found = Declared()
    found.add("requirements.txt", "PyPI", "reqests", "1.0")
    found.add("web/package.json", "npm", "expresss", None)
    (one, two) = lookalikes(found)
    assert (one.severity, one.rule, one.path) == ("medium", "lookalike", "reqests")
    assert (
        one.text
        == "reqests of requirements.txt is one letter from requests, which is widely known: see that it is meant"
    )
    assert two.path == "expresss"
    assert json.dumps(two.as_json())
