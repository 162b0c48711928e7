"""The tables of `raos.toml` as types: what a program promises. `ashat.raos_toml.load` reads them from a file."""

from __future__ import annotations

import json
import math
import re
import warnings
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    model_validator,
)

from ashat.common.text import require_visible
from ashat.protocol.messages import MIGRATE_SECONDS
from ashat.rollouts.barriers import Release


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
Command = Annotated[
    list[Annotated[str, _matching(r"[^\x00-\x1f\x7f]{1,1024}", "a word of 1 to 1024 characters, on one line")]],
    Field(min_length=1, max_length=64),
]


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


Why = Annotated[str, StringConstraints(min_length=8, max_length=500, strip_whitespace=True)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_pattern)]
JsonValue = Annotated[Any, AfterValidator(_json_value)]
JsonSchema = Annotated[str | dict[str, Any], PlainValidator(_schema)]


MAX_ORIGINS = 100


class Section(BaseModel):
    """A table of the file: no other keys, no conversions (`"8"` is not 8)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _MayHaveNone(Section):
    """A table that may say, with a reason, that there is nothing of its kind; then it says nothing else."""

    none: Why | None = None

    @model_validator(mode="after")
    def _says_nothing_else(self) -> Self:
        others = sorted(self.model_fields_set - {"none"})
        if self.none is not None and others:
            raise ValueError(f"none says that there is nothing to look at; leave out {', '.join(others)}, or none")
        return self


class RaosSection(Section):
    """`[raos]`: what the program calls itself. `/health` must report this version.

    A release is urgent where `urgent` is its own version: a mark that nobody took out says nothing of the next one.
    Where it names versions in `installable_from`, it is installed on what runs one of them, and on nothing else.
    """

    name: Word
    version: Word
    urgent: Word | None = None
    installable_from: list[Word] | None = Field(default=None, min_length=1, max_length=MAX_ORIGINS)

    @model_validator(mode="after")
    def _is_not_its_own_origin(self) -> Self:
        if self.version in (self.installable_from or ()):
            raise ValueError(f"installable_from names {self.version!r}, which is this version itself")
        return self

    @property
    def is_urgent(self) -> bool:
        """Whether this very version is marked as urgent."""
        return self.urgent == self.version


class AppSection(Section):
    """`[app]`: the program and its words, for a node that has no command of its own and allows this one.

    `{port}`, `{release}` and `{data}` stand for the program's port, its release's directory and its own data directory.
    """

    command: Command


class MigrateSection(Section):
    """`[migrate]`: what the node runs in the new release's directory before it switches, while what ran goes on.

    It may be run again at any time, so it must find by itself what is done already. `seconds` is how long it may take;
    the node may allow less. `reversible` says whether the release before works with what it leaves.
    """

    command: Command
    seconds: Annotated[float, Field(gt=0, le=MIGRATE_SECONDS)] = 600
    reversible: bool = True


class HealthSection(Section):
    """`[health]`: where the program says how it is, how long it may take to start, how long it must then hold.

    `path` answers 2xx while the program lives, `ready` while it can serve; None: it makes no such difference. With
    `expect = "release"` the answer is JSON that has the program's version and bundle; with "status" any 2xx will do,
    and the node vouches for the release that runs.
    """

    path: UrlPath = "/health"
    ready: UrlPath | None = None
    expect: Literal["release", "status"] = "release"
    start_seconds: Seconds = 30
    settle_seconds: Annotated[float, Field(ge=0, le=120)] = 3


class ModulesSection(_MayHaveNone):
    """`[modules]`: where the program reports what it loaded, and how long any one may take to load. `none` says why
    it has no modules."""

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


class Kept(Section):
    """`[[kept]]`: a value that the program keeps. The rollback rehearsal writes one, and looks whether it survives.

    `{value}` in `body`, or in `path`, stands for a text that is new each time; a GET of `read` must hold it afterwards.
    What is written stays there. Any 2xx is an answer. `auth` is the name of a credential of the verification policy.
    """

    name: Word
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    path: UrlPath
    body: JsonValue = None
    read: UrlPath
    auth: CredentialName | None = None

    @model_validator(mode="after")
    def _has_a_place_for_the_value(self) -> Self:
        if "{value}" not in json.dumps(self.body) + self.path:
            raise ValueError("neither body nor path holds {value}, which stands for what is written")
        return self


class DatabaseSection(_MayHaveNone):
    """`[database]`: what the program's database must hold; the node looks, with its operator's DSN.

    `migration` is the newest, `migrations` a pattern of the bundle's files that are one each, such as
    `migrations/*.sql`: each must have been applied, under its file's name or the start of that. `none` says why the
    program has no database.
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
    reason: Why
    until: date


class SecuritySection(Section):
    """`[security]`: headers that every answer must carry, and what is allowed for now."""

    headers: list[HeaderName] = []
    allow: list[Allow] = []


class RaosToml(Section):
    """The whole file. `app`, `migrate`, `database` and `performance` are None where the file has no such table."""

    raos: RaosSection
    app: AppSection | None = None
    migrate: MigrateSection | None = None
    health: HealthSection = HealthSection()
    modules: ModulesSection = ModulesSection()
    api: ApiSection = ApiSection()
    endpoints: list[Endpoint] = Field(default=[], alias="endpoint", max_length=500)
    checks: list[OwnCheck] = Field(default=[], alias="check", max_length=100)
    kept: list[Kept] = Field(default=[], max_length=20)
    database: DatabaseSection | None = None
    performance: PerformanceSection | None = None
    security: SecuritySection = SecuritySection()


class Commands(BaseModel):
    """What a node runs of a release: nothing else of its file matters to it, and may be of a later version."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    app: AppSection | None = None
    migrate: MigrateSection | None = None
    raos: Any = None

    @property
    def is_urgent(self) -> bool:
        """Whether the file marks its very version as urgent; what else `[raos]` says does not matter to a node."""
        said = self.raos if isinstance(self.raos, dict) else {}
        return isinstance(said.get("urgent"), str) and said["urgent"] == said.get("version")

    @property
    def release(self) -> Release:
        """What the release is called, "" where it does not say, and from which versions it can be installed.

        Raises:
            ValueError: what it says of that is none of what `raos.toml` may say.
        """
        said = self.raos if isinstance(self.raos, dict) else {}
        version, origins = said.get("version", ""), said.get("installable_from")
        if not isinstance(version, str):
            raise ValueError("its version is no text")
        if origins is None:
            return Release(version)
        if not (isinstance(origins, list) and 0 < len(origins) <= MAX_ORIGINS):
            raise ValueError("installable_from is no list of versions")
        if not all(isinstance(each, str) for each in origins):
            raise ValueError("installable_from is no list of versions")
        return Release(version, frozenset(origins))
