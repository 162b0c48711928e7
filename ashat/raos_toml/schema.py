"""The tables of `raos.toml` as types: what a program promises. `ashat.raos_toml.load` reads them from a file."""

from __future__ import annotations

import math
import re
import warnings
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, StringConstraints

from ashat.common.text import require_visible


def _matching(pattern: str, expected: str) -> AfterValidator:
    """A validator that says in words what is `expected`, rather than show a pattern."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


Word = Annotated[
    str,
    _matching(r"[^\x00-\x1f\x7f]{1,128}", "a text of 1 to 128 characters, on one line"),
    AfterValidator(require_visible),
]
UrlPath = Annotated[
    str,
    StringConstraints(max_length=1024),
    _matching(r"/(?!/)[\x21\x22\x24-\x7e]*", "a path on the program's own server, such as /health"),
]
HeaderName = Annotated[str, _matching(r"[A-Za-z0-9-]{1,64}", "the name of an HTTP header")]
HeaderValue = Annotated[str, _matching(r"[^\x00-\x1f\x7f]{0,1024}", "a text of up to 1024 characters, on one line")]
CredentialName = Annotated[str, _matching(r"[a-z][a-z0-9-]{0,63}", "the name of a credential, such as staff")]
CheckName = Annotated[str, _matching(r"[a-z][a-z0-9-]{0,59}", "a word of a-z, 0-9 and -, such as payments")]
RuleName = Annotated[str, _matching(r"[a-z][a-z0-9-]{0,63}", "the name of a rule, such as secret")]
_BUNDLE_PATH = re.compile(r"(?!/)(?!.*(^|/)\.\.(/|$))[^\x00-\x1f\x7f\\]{1,512}")
Seconds = Annotated[float, Field(gt=0, le=600)]


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        for item in value.values():
            _json_value(item)
    elif isinstance(value, list):
        for item in value:
            _json_value(item)
    elif not (value is None or isinstance(value, (str, bool, int, float))):
        raise ValueError(f"a {type(value).__name__} cannot be written as JSON; write it as a text")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON")
    return value


def _pattern(text: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python may read in another way one day is no matter of the release's
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"no regular expression: {error}") from None
    return text


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _schema(value: Any) -> Any:
    if isinstance(value, dict):
        return _json_value(value)
    if not (isinstance(value, str) and _BUNDLE_PATH.fullmatch(value)):
        raise ValueError("expected a table, or the path of a file of the bundle")
    return value


Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_pattern)]
JsonValue = Annotated[Any, AfterValidator(_json_value)]
JsonSchema = Annotated[str | dict[str, Any], PlainValidator(_schema)]


class Section(BaseModel):
    """A table of the file: no other keys, no conversions (`"8"` is not 8)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RaosSection(Section):
    """`[raos]`: what the program calls itself. `/health` must report this version."""

    name: Word
    version: Word


class HealthSection(Section):
    """`[health]`: where the program says how it is, how long it may take to start, how long it must then hold.

    `path` answers 2xx while the program lives, `ready` while it can serve; None: it makes no such difference.
    """

    path: UrlPath = "/health"
    ready: UrlPath | None = None
    start_seconds: Seconds = 30
    settle_seconds: Annotated[float, Field(ge=0, le=120)] = 3


class ModulesSection(Section):
    """`[modules]`: where the program reports what it loaded, and how long any one may take to load."""

    report: UrlPath = "/modules"
    load_ms: Annotated[int, Field(gt=0, le=600_000)] | None = None


class ApiSection(Section):
    """`[api]`: where the program publishes its OpenAPI document; None: it is looked for at /openapi.json."""

    openapi: UrlPath | None = None


class Request(Section):
    """One request and what its answer must be.

    `json` is a part of the answer: each key named must be there with that value, others may be there too; a list
    must be equal. `schema` is a JSON Schema: a table, or the path of a file of the bundle. `matches` are regular
    expressions found somewhere in the text. `auth` is the name of a credential of the verification policy.
    `time_limit` is in seconds, from the first byte sent to the last received.
    """

    name: Word
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    path: UrlPath
    body: JsonValue = None
    status: Annotated[int, Field(ge=200, le=599)] = 200
    headers: dict[HeaderName, HeaderValue] = {}
    contains: Annotated[
        list[Annotated[str, StringConstraints(min_length=1)]], Field(max_length=50), BeforeValidator(_listed)
    ] = []
    matches: Annotated[list[Pattern], Field(max_length=50), BeforeValidator(_listed)] = []
    expected_json: JsonValue = Field(default=None, alias="json")
    answer_schema: JsonSchema | None = Field(default=None, alias="schema")
    auth: CredentialName | None = None
    time_limit: Annotated[float, Field(gt=0, le=60)] = 5


class Endpoint(Request):
    """`[[endpoint]]`: a request that the program answers for whoever uses it."""


class OwnCheck(Request):
    """`[[check]]`: a check of the release's own, which stands in the report beside the six, under its `title`.

    `name` is a word such as `payments`; `severity` says whether a failure blocks (`high`) or warns (`medium`).
    """

    name: CheckName
    title: Word | None = None
    severity: Literal["high", "medium"] = "high"


class DatabaseSection(Section):
    """`[database]`: what the program's database must hold; the node looks, with its operator's DSN.

    `migration` is the newest, `migrations` a pattern of the bundle's files that are one each, such as
    `migrations/*.sql`: each must have been applied, under its file's name or the start of that.
    """

    tables: list[Word] = []
    migration: Word | None = None
    migrations: Annotated[str, _matching(_BUNDLE_PATH.pattern, "a pattern of files of the bundle")] | None = None
    latency_ms: Annotated[int, Field(gt=0, le=60_000)] = 1000


class PerformanceSection(Section):
    """`[performance]`: what is asked, how often, how many at once, and the budgets.

    `slower_percent` is how much slower than the release before, in the median, is still accepted.
    """

    paths: Annotated[list[UrlPath], Field(min_length=1, max_length=32)]
    requests: Annotated[int, Field(ge=20, le=20_000)] = 200
    concurrency: Annotated[int, Field(ge=1, le=32)] = 4
    p95_ms: Annotated[int, Field(gt=0, le=60_000)]
    error_rate: Annotated[int, Field(ge=0, le=1000)] = 0
    slower_percent: Annotated[int, Field(ge=5, le=1000)] = 20


class Allow(Section):
    """`[[security.allow]]`: a finding that somebody decided to live with, until a day."""

    rule: RuleName
    path: Word = "*"
    reason: Annotated[str, StringConstraints(min_length=8, max_length=500, strip_whitespace=True)]
    until: date


class SecuritySection(Section):
    """`[security]`: headers that every answer must carry, and what is allowed for now."""

    headers: list[HeaderName] = []
    allow: list[Allow] = []


class RaosToml(Section):
    """The whole file. `database` and `performance` are None where the file has no such table."""

    raos: RaosSection
    health: HealthSection = HealthSection()
    modules: ModulesSection = ModulesSection()
    api: ApiSection = ApiSection()
    endpoints: list[Endpoint] = Field(default=[], alias="endpoint", max_length=500)
    checks: list[OwnCheck] = Field(default=[], alias="check", max_length=100)
    database: DatabaseSection | None = None
    performance: PerformanceSection | None = None
    security: SecuritySection = SecuritySection()
