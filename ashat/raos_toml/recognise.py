"""Which kind of program a source tree holds: Django, FastAPI, Flask, Node, a jar, .NET or static files."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ashat.raos_toml.look import TEXT_BYTES, SourceTree

_HEALTH = r"""(/?(?:[\w-]+/){0,3}(?:healthz?|health-?check|livez?|readyz?|ping|up|status|heartbeat|_health)/?)"""
_PYTHON_ROUTE = rf"""@[\w.]+\.(?:get|route|api_route)\(\s*["']{_HEALTH}["']"""
_JS_ROUTE = rf"""\w+\.(?:get|use|all)\(\s*["'`]{_HEALTH}["'`]"""
_DJANGO_ROUTE = rf"""\b(?:re_)?path\(\s*r?["']\^?{_HEALTH}\$?["']"""
_PYTHON = ("*.py",)
_SCRIPTS = ("*.js", "*.mjs", "*.cjs", "*.ts")
_JAR_ENTRIES = 50_000
# Packages by which a program shows that it has a database.
_PYTHON_DATABASES = (
    r"(?im)^[\s\"']*(psycopg2?|psycopg2-binary|asyncpg|mysqlclient|pymysql|sqlalchemy|sqlmodel|peewee)\b"
)
_PYTHON_NEEDS = ("*requirements*.txt", "pyproject.toml", "*/pyproject.toml")
_MIGRATE_SCRIPTS = ("migrate:deploy", "db:migrate", "migrate")
_NODE_TOOLS = MappingProxyType(
    {
        "@prisma/client": ("prisma", "migrate", "deploy"),
        "prisma": ("prisma", "migrate", "deploy"),
        "knex": ("knex", "migrate:latest"),
        "sequelize": ("sequelize-cli", "db:migrate"),
    }
)
_NODE_DATABASES = (
    "pg",
    "mysql",
    "mysql2",
    "sequelize",
    "knex",
    "prisma",
    "@prisma/client",
    "typeorm",
    "better-sqlite3",
)


@dataclass(frozen=True)
class Found:
    """Something that was found, and why it is believed."""

    value: str
    why: str


@dataclass(frozen=True)
class Recognised:
    """What a tree seems to be. `database` says by what a database shows, "" where none does; `tables` are those that
    its migrations keep their record in, `migration` is the newest of them, where the tree tells, and `migrate` the
    command that applies them, () where none is known."""

    kind: str
    why: str
    command: tuple[str, ...]
    health: Found
    name: str = ""
    version: Found | None = None
    openapi: bool = False
    database: str = ""
    tables: tuple[str, ...] = ()
    migration: Found | None = None
    modules: bool = False
    reports_bundle: bool = False
    migrate: tuple[str, ...] = ()
    others: tuple[str, ...] = field(default=())


def recognise(tree: SourceTree) -> Recognised | None:
    """Find out what the tree holds; None where it is nothing that is known here."""
    found = [each for recogniser in _RECOGNISERS if (each := recogniser(tree))]
    if not found:
        return None
    mention = tree.search(r"ASHAT_BUNDLE", *_PYTHON, *_SCRIPTS, "*.java", "*.cs", "*.go", "*.rb", "*.php")
    return replace(
        found[0],
        modules=bool(tree.matching("Modules/*")),
        reports_bundle=mention is not None,
        others=tuple(each.kind for each in found[1:]),
    )


def _django(tree: SourceTree) -> Recognised | None:
    manage = next((path for path in tree.matching("*manage.py") if "DJANGO_SETTINGS_MODULE" in tree.text(path)), "")
    if not manage:
        return None
    settings = tree.search(r"INSTALLED_APPS", "*settings*.py", "*/settings/*.py")
    admin = tree.search(r"""\bpath\(\s*["']([\w/-]*)["']\s*,\s*admin\.site\.urls""", "*urls.py")
    health = _route(tree, _DJANGO_ROUTE, "*urls.py")
    if health is None and admin:
        health = Found(
            f"/{admin[0][1]}login/", f"{admin[1]} has Django's admin; a page of your own that needs no login is better"
        )
    wsgi = next(iter(tree.matching("*wsgi.py")), "project/wsgi.py").removesuffix(".py").replace("/", ".")
    return Recognised(
        "a Django site",
        manage + (f", {settings[1]}" if settings else ""),
        ("gunicorn", "--bind", "127.0.0.1:{port}", wsgi),
        health or _nothing_found("urls.py"),
        *_python_name(tree),
        database=f"{settings[1]} has INSTALLED_APPS" if settings else "Django needs one",
        tables=("django_migrations",),
        migrate=("python3", manage, "migrate", "--noinput"),
    )


def _fastapi(tree: SourceTree) -> Recognised | None:
    return _python_app(tree, "FastAPI", r"^(\w+)(?:\s*:\s*FastAPI)?\s*=\s*FastAPI\(", openapi=True)


def _flask(tree: SourceTree) -> Recognised | None:
    return _python_app(tree, "Flask", r"^(\w+)(?:\s*:\s*Flask)?\s*=\s*Flask\(", openapi=False)


def _python_app(tree: SourceTree, kind: str, pattern: str, *, openapi: bool) -> Recognised | None:
    found = tree.search(f"(?m){pattern}", *_PYTHON)
    if not found:
        return None
    app = f"{found[1].removesuffix('.py').replace('/', '.')}:{found[0][1]}"
    serve = ("uvicorn", "--port", "{port}", app) if openapi else ("gunicorn", "--bind", "127.0.0.1:{port}", app)
    health = _route(tree, _PYTHON_ROUTE, *_PYTHON)
    if health is None and openapi:
        health = Found("/openapi.json", "no route is called health; this one answers while the program lives")
    needs = tree.search(_PYTHON_DATABASES, *_PYTHON_NEEDS)
    alembic = next(iter(tree.matching("*alembic.ini")), "")
    return Recognised(
        f"a {kind} program",
        found[1],
        serve,
        health or _nothing_found(found[1]),
        *_python_name(tree),
        openapi=openapi,
        database=alembic or (f"{needs[1]} needs {needs[0][1]}" if needs else ""),
        tables=("alembic_version",) if alembic else (),
        migration=_alembic_head(tree) if alembic else None,
        migrate=_alembic_command(tree, app, alembic),
    )


def _alembic_command(tree: SourceTree, app: str, ini: str) -> tuple[str, ...]:
    """Find how Alembic is called: through Flask where that wraps it, else with its own settings."""
    if ini and tree.search(r"(?i)\bflask[-_]migrate\b", *_PYTHON_NEEDS):
        return ("flask", "--app", app, "db", "upgrade")
    return ("alembic", *(("-c", ini) if ini != "alembic.ini" else ()), "upgrade", "head") if ini else ()


def _alembic_head(tree: SourceTree) -> Found | None:
    """Find the revision that no other follows, of Alembic's files; None where there is not exactly one."""
    revisions: dict[str, str] = {}
    before: set[str] = set()
    for path in tree.matching("*versions/*.py"):
        text = tree.text(path)
        own = re.search(r"""(?m)^revision\b[^=\n]*=\s*["']([^"']+)["']""", text)
        down = re.search(r"(?m)^down_revision\b[^=\n]*=\s*(.+)$", text)
        if own:
            revisions[own[1]] = path
            before |= set(re.findall(r"""["']([^"']+)["']""", down[1] if down else ""))
    heads = revisions.keys() - before
    return next((Found(head, revisions[head]) for head in heads), None) if len(heads) == 1 else None


def _node(tree: SourceTree) -> Recognised | None:
    package = tree.json("package.json")
    scripts, needs = package.get("scripts"), package.get("dependencies")
    if not package or (not (isinstance(scripts, dict) and "start" in scripts) and not tree.has("server.js")):
        return None
    needs = needs if isinstance(needs, dict) else {}
    database = next((name for name in _NODE_DATABASES if name in needs), "")
    tables = {"knex": "knex_migrations", "prisma": "_prisma_migrations", "@prisma/client": "_prisma_migrations"}
    name, version = package.get("name"), package.get("version")
    starts = isinstance(scripts, dict) and "start" in scripts
    return Recognised(
        "a Node program",
        "package.json",
        ("npm", "start") if starts else ("node", "server.js"),
        _route(tree, _JS_ROUTE, *_SCRIPTS) or _nothing_found("the scripts"),
        name if isinstance(name, str) else "",
        Found(version, "package.json") if isinstance(version, str) else None,
        database=f"package.json needs {database}" if database else "",
        tables=tuple({tables[name] for name in needs if name in tables}),
        migrate=_node_migrate(scripts if isinstance(scripts, dict) else {}, needs),
    )


def _node_migrate(scripts: dict[str, object], needs: dict[str, object]) -> tuple[str, ...]:
    """Find the package's own script that migrates, or else the command of the tool that it needs."""
    own = next((name for name in _MIGRATE_SCRIPTS if name in scripts), "")
    if own:
        return ("npm", "run", own)
    return next((("npx", *words) for name, words in _NODE_TOOLS.items() if name in needs), ())


def _jar(tree: SourceTree) -> Recognised | None:
    jars = [path for path in tree.matching("*.jar") if path.count("/") < 2 and "/lib" not in f"/{path}"]
    for path in jars:
        manifest, names = _of_jar(tree, path)
        if "Main-Class" not in manifest:
            continue
        actuator = any("spring-boot-actuator" in name for name in names)
        health = Found("/actuator/health", f"{path} has Spring Boot's actuator") if actuator else _nothing_found(path)
        version = manifest.get("Implementation-Version", "")
        return Recognised(
            "a jar",
            path,
            ("java", "-jar", path),
            health,
            manifest.get("Implementation-Title", ""),
            Found(version, f"the manifest of {path}") if version else None,
            database="it has a JDBC driver" if any("postgresql-" in name or "mysql-" in name for name in names) else "",
            tables=("flyway_schema_history",) if any("flyway-core" in name for name in names) else (),
        )
    return None


def _of_jar(tree: SourceTree, path: str) -> tuple[dict[str, str], list[str]]:
    """Read a jar's main attributes, and the names of its entries."""
    try:
        with closing(zipfile.ZipFile(tree.root / path)) as jar:
            names = jar.namelist()[:_JAR_ENTRIES]
            with jar.open("META-INF/MANIFEST.MF") as file:
                text = file.read(TEXT_BYTES).decode("utf-8", "replace")
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile):
        return {}, []
    lines = text.replace("\r\n", "\n").replace("\n ", "").split("\n")
    return {key: value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}, names


def _dotnet(tree: SourceTree) -> Recognised | None:
    for path in tree.matching("*.runtimeconfig.json"):
        name = path.removesuffix(".runtimeconfig.json")
        if "Microsoft.AspNetCore.App" not in tree.text(path) or not tree.has(f"{name}.dll"):
            continue
        libraries = tree.json(f"{name}.deps.json").get("libraries")
        known = list(libraries) if isinstance(libraries, dict) else []
        own = next((each for each in known if each.startswith(f"{name.rpartition('/')[2]}/")), "")
        entity = any(each.startswith("Microsoft.EntityFrameworkCore/") for each in known)
        return Recognised(
            "a .NET program",
            path,
            ("dotnet", f"{name}.dll", "--urls", "http://127.0.0.1:{port}"),
            _nothing_found("a .dll"),
            name.rpartition("/")[2],
            Found(own.partition("/")[2], f"{name}.deps.json") if own else None,
            database=f"{name}.deps.json has Entity Framework" if entity else "",
            tables=("__EFMigrationsHistory",) if entity else (),
        )
    return None


def _static(tree: SourceTree) -> Recognised | None:
    index = next(iter(tree.matching("*index.html")), "")
    if not index:
        return None
    directory = index.rpartition("/")[0]
    root = "{release}" + (f"/{directory}" if directory else "")
    serve = ("caddy", "file-server", "--listen", "127.0.0.1:{port}", "--root", root)
    return Recognised("static files", index, serve, Found("/", f"{index} answers there"))


_RECOGNISERS: tuple[Callable[[SourceTree], Recognised | None], ...] = (
    _django,
    _fastapi,
    _flask,
    _node,
    _jar,
    _dotnet,
    _static,
)


def _route(tree: SourceTree, pattern: str, *files: str) -> Found | None:
    found = tree.search(pattern, *files)
    if not found:
        return None
    below = "" if re.search(r"@app\b|\bapp\.", found[0][0]) else "; add what its router stands below, if anything"
    return Found("/" + found[0][1].lstrip("/"), f"a route of {found[1]}{below}")


def _nothing_found(where: str) -> Found:
    return Found(
        "/", f"no route called health was found in {where}; name one that needs the program's database, if any"
    )


def _python_name(tree: SourceTree) -> tuple[str, Found | None]:
    for path in tree.matching("*pyproject.toml"):
        document = tree.toml(path)
        tool = document.get("tool")
        poetry = tool.get("poetry") if isinstance(tool, dict) else None
        for table in (document.get("project"), poetry):
            if isinstance(table, dict) and isinstance(table.get("name"), str):
                version = table.get("version")
                return table["name"], Found(version, path) if isinstance(version, str) else None
    return "", None
