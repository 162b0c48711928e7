"""Seeded faults: answers that are not as declared."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.selftest.faults.base import SeededFault, edited, faulty, promising_nothing, replace_text

ITEM = "/api/market/items/starter-pack"
_ROOMS = """[[endpoint]]
name = "Chat lists its rooms"
path = "/api/chat/rooms"
json = { rooms = ["lobby", "trade"] }
"""
_STRANGER = """[[endpoint]]
name = "Auth refuses a stranger"
path = "/api/auth/me"
status = 401
time_limit = 1
"""


def _undocumented(tree: Path, path: str, now: str | None = None) -> None:
    """Remove a path from the OpenAPI document, or call it `now` there."""
    file = tree / "Modules" / "Core" / "openapi.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    item = document["paths"].pop(path)
    if now:
        document["paths"][now] = item
    file.write_text(json.dumps(document), encoding="utf-8")


def _without_rooms(tree: Path) -> None:
    """Remove Chat's list of rooms from the program, from its OpenAPI document, and from what raos.toml promises."""
    places = '[[endpoint]]\nname = "Chat lists its places"\npath = "/api/chat/places"\n'
    replace_text(
        tree, "Modules/Chat/__init__.py", '"GET", "/api/chat/rooms", rooms', '"GET", "/api/chat/places", rooms'
    )
    replace_text(tree, "raos.toml", _ROOMS, places)
    _undocumented(tree, "/api/chat/rooms", "/api/chat/places")


def _without_me(tree: Path) -> None:
    """Remove what strangers are refused from the program, and from what is promised."""
    replace_text(tree, "Modules/Auth/__init__.py", '"/api/auth/me"', '"/api/auth/self"')
    replace_text(tree, "raos.toml", _STRANGER, "")
    _undocumented(tree, "/api/auth/me", "/api/auth/self")


def _warned(name: str, says: str, *edits: str) -> SeededFault:
    """Make a release whose web server is changed, each text followed by what takes its place; a person is to look."""

    def change(tree: Path) -> None:
        for old, new in zip(edits[::2], edits[1::2], strict=True):
            replace_text(tree, "kernel/web.py", old, new)

    return SeededFault(name, "api", says, change, expects="warn")


FAULTS: tuple[SeededFault, ...] = (
    faulty("api", r"GET /api/market/items/starter-pack\): status 500 instead of 200", f"status={ITEM}@500"),
    faulty("api", r"json\.id is missing", f"empty={ITEM}"),
    faulty("api", r"the answer is no valid JSON", f"bad-json={ITEM}"),
    faulty("api", r"the answer is not UTF-8", f"bad-charset={ITEM}"),
    faulty("api", r"no whole answer within 1 s", f"hang={ITEM}"),
    faulty("api", r"no whole answer within 1 s", f"drip={ITEM}"),
    faulty("api", r"no whole answer within 1 s", f"drip-headers={ITEM}"),
    faulty("api", r"the answer has more than 1048576 bytes", f"huge={ITEM}"),
    faulty("api", r"status 302, a redirect to /api/market/items/starter-pack", f"redirect={ITEM}"),
    edited(
        "an endpoint is gone",
        "api",
        r"Forum lists its boards .* status 404 instead of 200",
        "Modules/Forum/__init__.py",
        '"/api/forum/boards"',
        '"/api/forum/places"',
    ),
    edited(
        "a page lost its words",
        "api",
        r"the answer does not hold 'Welcome to RaOS'",
        "Modules/Content/pages/welcome.html",
        "Welcome to RaOS",
        "It works!",
    ),
    edited(
        "strangers are let in",
        "api",
        r"Auth refuses a stranger .* status 200 instead of 401",
        "Modules/Auth/__init__.py",
        '{"name": accounts.who(request)}',
        '{"name": "kim"}',
    ),
    edited(
        "JSON is sent without its charset",
        "api",
        r"Content-Type is 'application/json' instead of 'application/json; charset=utf-8'",
        "kernel/web.py",
        "application/json; charset=utf-8",
        "application/json",
    ),
    faulty("api", r"status 500 instead of", "error-every=2"),
    edited(
        "a time is a number",
        "api",
        r"""the answer does not match '"time": """,
        "Modules/Core/__init__.py",
        'datetime.now(UTC).isoformat(timespec="milliseconds")',
        "int(datetime.now(UTC).timestamp())",
    ),
    edited(
        "an expression that takes for ever",
        "api",
        r"cannot be held against the answer: it takes more than 2 s",
        "raos.toml",
        """matches = '"time": """,
        """matches = '^(.+)+"time":!""",
    ),
    edited(
        "a price is a text",
        "api",
        r"""json\.price breaks the schema: "\d+" is not of type 'integer'""",
        "Modules/Market/__init__.py",
        '{**dict(row), "currency"',
        '{**dict(row), "price": str(row["price"]), "currency"',
    ),
    edited(
        "a schema that is none",
        "api",
        r"its schema cannot be held against the answer: /type: 'objekt'",
        "schemas/item.json",
        '"type": "object"',
        '"type": "objekt"',
    ),
    edited(
        "an answer breaks the OpenAPI document",
        "api",
        r"""json\.boards\[0\]\.threads breaks the schema: "0" is not of type 'integer' \(of /openapi\.json\)""",
        "Modules/Forum/__init__.py",
        "counts.get(name, 0)",
        "str(counts.get(name, 0))",
    ),
    edited(
        "the OpenAPI document is gone",
        "api",
        r"the OpenAPI document that raos\.toml promises at /openapi\.json cannot be read: status 404",
        "Modules/Core/__init__.py",
        '"/openapi.json", openapi',
        '"/openapi.yaml", openapi',
    ),
    faulty("api", r"/openapi\.json cannot be read: no valid JSON", "bad-json=/openapi.json"),
    SeededFault(
        "an endpoint of the release before is gone",
        "api",
        r"GET /api/chat/rooms was answered by the release that ran before, and is gone: status 404",
        _without_rooms,
        against_before=True,
    ),
    SeededFault(
        "an endpoint that refused strangers is gone",
        "api",
        r"GET /api/auth/me was answered with status 401 by the release that ran before, and no longer is: status 404",
        _without_me,
        against_before=True,
    ),
    SeededFault(
        "an operation of the release before is not documented any more",
        "api",
        r"GET /pages/\{page\} stood in the OpenAPI document of the release that ran before, not in /openapi\.json",
        lambda tree: _undocumented(tree, "/pages/{page}"),
        against_before=True,
        expects="warn",
    ),
    edited(
        "a number that is none",
        "api",
        r"the answer is no valid JSON \(NaN is no JSON\)",
        "Modules/Forum/__init__.py",
        '{"boards": listing}',
        '{"boards": listing, "load": float("nan")}',
    ),
    edited(
        "a key twice in one object",
        "api",
        r"the answer is no valid JSON \(an object has the key 'boards' twice\)",
        "kernel/web.py",
        'json.dumps(value).encode("utf-8")',
        """json.dumps(value).replace('{"boards": [', '{"boards": 1, "boards": [').encode("utf-8")""",
    ),
    _warned(
        "HEAD is answered with a body",
        r"HEAD /api/core/status: a body follows its headers",
        'if self.command != "HEAD":',
        "if True:",
    ),
    _warned(
        "HEAD has another status than GET",
        r"HEAD /api/core/status: status 404; GET answers 200",
        '(known, method) == ("GET", "HEAD")',
        '(known, method) == ("GET", "GET")',
        '405, f"{method}',
        '404, f"{method}',
    ),
    SeededFault(
        "an answer is a page instead of JSON",
        "api",
        r"its type is text/html; the release before answered application/json",
        lambda tree: replace_text(
            tree,
            "Modules/Chat/__init__.py",
            'json_response({"rooms": list(ROOMS)})',
            'json_response({"rooms": list(ROOMS)}, headers={"Content-Type": "text/html"})',
        ),
        against_before=True,
    ),
    SeededFault(
        "an answer is ten times as large as before",
        "api",
        r"Forum lists its boards .*: the answer has \d+ bytes; that of the release before had \d+",
        lambda tree: replace_text(
            tree, "Modules/Forum/__init__.py", '{"boards": listing}', '{"boards": listing, "more": "x" * 5000}'
        ),
        against_before=True,
        expects="warn",
    ),
    *promising_nothing([("api", r"raos\.toml declares no \[\[endpoint\]\], so none was asked")]),
)
