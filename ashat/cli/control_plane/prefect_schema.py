"""Which schema Prefect's database has, beside the one that the installed Prefect knows; Prefect is not imported.

Prefect keeps its schema by Alembic: a chain of files, the last of which is the schema of the version. Its own commands
end in a traceback at a revision that they do not know.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ashat.cli.control_plane.versions import installed_version
from ashat.common.files import read_bounded, replace_file
from ashat.errors import ControlPlaneError

if TYPE_CHECKING:
    import sqlalchemy as sa

_VERSIONS = "server/database/_migrations/versions"
_REVISION = re.compile(r"^(revision|down_revision)\s*(?::[^=\n]*)?=\s*\(?['\"]?([^'\"\n,)]*)", re.MULTILINE)
_HOW_MANY = 2000
_FILE_BYTES = 1 << 18
# Which Prefect used the database of a home last.
_NOTED = "prefect/version"
_NOTE_BYTES = 100


@dataclass(frozen=True)
class PrefectChain:
    """The schemas that a Prefect knows: the last one, and all."""

    version: str
    head: str
    known: frozenset[str]


def installed_chain(dialect: str) -> PrefectChain:
    """Read which schemas the installed Prefect knows for `dialect`, `postgresql` or `sqlite`.

    Raises:
        ControlPlaneError: its files are not as expected.
    """
    spec = importlib.util.find_spec("prefect")
    places = list(spec.submodule_search_locations or []) if spec else []
    revisions: dict[str, str] = {}
    for path in sorted((Path(places[0]) / _VERSIONS / dialect).glob("*.py"))[:_HOW_MANY] if places else []:
        found = dict(_REVISION.findall(path.read_text("utf-8")[:_FILE_BYTES]))
        if "revision" in found:
            revisions[found["revision"]] = found.get("down_revision", "")
    heads = revisions.keys() - set(revisions.values())
    if len(heads) != 1:
        raise ControlPlaneError("Prefect's own migrations are not as expected: install ashat-deploy again.")
    return PrefectChain(installed_version(), heads.pop(), frozenset(revisions))


def stamped(connection: sa.Connection) -> list[str] | None:
    """Read which schemas a database says that it has; None where it has no tables of Prefect at all."""
    import sqlalchemy as sa

    inspector = sa.inspect(connection)
    if not inspector.has_table("alembic_version"):
        return [] if inspector.has_table("flow_run") else None
    return [str(row[0]) for row in connection.exec_driver_sql("SELECT version_num FROM alembic_version")]


def schema_fault(found: list[str] | None, chain: PrefectChain, *, what: str, wrote: str, upgrade: str) -> str:
    """Say in a line what keeps the installed Prefect from using a database of the schema `found`; "" if nothing does.

    `wrote` is the version of the Prefect that used it last, "" where nobody knows; `upgrade` says how it gets the
    schema of the installed one.
    """
    if found == [chain.head]:
        return ""
    if found is None:
        return f"{what} has no tables yet: {upgrade}."
    if len(found) != 1:
        return f"{what} is half migrated: it names {len(found)} schemas. Restore a backup; nothing was changed."
    if found[0] not in chain.known:
        who = f"Prefect {wrote}" if wrote and wrote != chain.version else "A newer Prefect"
        return (
            f"{who} wrote {what} (schema {found[0]}), and this install has Prefect {chain.version}, which cannot read "
            "it: upgrade this install, or restore a backup of before. Nothing was changed."
        )
    return f"{what} has an older schema ({found[0]}) than Prefect {chain.version} ({chain.head}): {upgrade}."


def read_stamp(url: str) -> list[str] | None:
    """Read the schema of the PostgreSQL database at `url`, as `stamped`.

    Raises:
        ControlPlaneError: it does not answer.
    """
    import sqlalchemy as sa
    from sqlalchemy.exc import DBAPIError

    try:
        parsed = sa.make_url(url).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(parsed, connect_args={"connect_timeout": 10}, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return stamped(connection)
    except (DBAPIError, ValueError, ImportError, sa.exc.ArgumentError) as error:
        words = (str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        where = sa.make_url(url).set(query={}).render_as_string(hide_password=True) if "://" in url else "its address"
        raise ControlPlaneError(f"Prefect's database does not answer ({where}): {words}.") from None


def require_readable(home: Path) -> None:
    """Check that the installed Prefect knows the schema of the database of `home`, which it may bring to its own.

    Raises:
        ControlPlaneError: a newer Prefect wrote it, or it is half migrated or damaged.
    """
    path = home / "prefect" / "prefect.db"
    if not path.exists() or os.environ.get("PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        return
    chain = installed_chain("sqlite")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=30)) as connection:
            names = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            query = "SELECT version_num FROM alembic_version"
            found = [str(row[0]) for row in connection.execute(query)] if "alembic_version" in names else []
    except sqlite3.Error as error:
        raise ControlPlaneError(f"{path} cannot be read: {error}. Restore it from a backup.") from None
    if not names or (len(found) == 1 and found[0] in chain.known):
        return
    try:
        wrote = read_bounded(home / _NOTED, _NOTE_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        wrote = ""
    raise ControlPlaneError(schema_fault(found, chain, what=str(path), wrote=wrote, upgrade=""))


def note_version(home: Path) -> None:
    """Note in `home` that the installed Prefect uses its database now."""
    replace_file(home / _NOTED, f"{installed_version()}\n".encode(), mode=0o600)
