"""What a node finds when it looks at its program and its database: the answers of `/v1/probes/*`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool

from ashat.protocol.messages import Digest, Message, Moment


class HealthProbe(Message):
    """The program's answer to its health path; `ms` is how long it took."""

    healthy: bool
    status: int | None
    ms: int
    restarts: int
    version: str | None = None
    bundle: Digest | None = None
    detail: str = ""


class Listening(Message):
    """An address at which a process of the program takes connections, or datagrams."""

    host: str
    port: int
    protocol: Literal["tcp", "udp"] = "tcp"


class ProcessProbe(Message):
    """What the node's machine knows of the running program, whatever it says itself.

    `bundle` is the release that the node started it from, at `started_at`; None: the node does not run it, or nothing
    runs, as `detail` says. `answers` is whether a process that came of that start takes the connections to the
    program's address; None: that cannot be seen. The counts are of all its processes together, `memory_bytes` is what
    is resident of each, and `unseen` counts those that this node may not look into.
    """

    bundle: Digest | None = None
    started_at: Moment | None = None
    answers: bool | None = None
    processes: int = 0
    threads: int = 0
    open_files: int = 0
    memory_bytes: int = 0
    unseen: int = 0
    listening: list[Listening] = Field(default_factory=list)
    detail: str = ""


class ListedPaths(Message):
    """Some of a release's paths: how many there are, and the names of the first; a directory's ends in a slash."""

    count: int = 0
    names: list[str] = Field(default_factory=list)


class ReleaseProbe(Message):
    """How the files of the running release, as they lie on the node's disk, differ from those of its manifest.

    `files` were hashed, of `bytes` in all; `left` were not come to in time, and only where `walked` was everything
    listed. `changed` have other bytes, another target, or are of another kind; `modes` have another mode, or are
    directories that others may change; `extra` are not in the manifest, but for what Python keeps of its modules, which
    is `cached`; `unread` may not be read by the node. No bundle: nothing runs, or nothing is known of it, as `detail`
    says.
    """

    bundle: Digest | None = None
    files: int = 0
    bytes: int = 0
    left: int = 0
    walked: bool = False
    ms: int = 0
    changed: ListedPaths = ListedPaths()
    missing: ListedPaths = ListedPaths()
    modes: ListedPaths = ListedPaths()
    extra: ListedPaths = ListedPaths()
    cached: ListedPaths = ListedPaths()
    unread: ListedPaths = ListedPaths()
    detail: str = ""


class LoggedError(Message):
    """A kind of error that the program logged: how often, and the first line that names it, without known secrets.

    `signature` is what the lines of that kind have in common.
    """

    kind: Literal["traceback", "error"]
    signature: str
    text: str
    count: int


class LoggedErrors(Message):
    """The errors and tracebacks in what the program wrote, from the file `log`, in the order in which they first came.

    `position` is where the log ended then; `unread` bytes before that were not come to. `count` is of all errors,
    `left_out` of those of further kinds than are listed. `detail` says why nothing is known.
    """

    log: str = ""
    position: int = 0
    lines: int = 0
    unread: int = 0
    count: int = 0
    left_out: int = 0
    errors: list[LoggedError] = Field(default_factory=list)
    detail: str = ""


class ModuleReport(Message):
    """One module as the running program reports it; `load_ms` is how long it took to load."""

    name: str
    version: str = ""
    status: str = ""
    digest: str | None = None
    error: str | None = None
    load_ms: int | None = None


class ModulesProbe(Message):
    """The program's module report; `ok` says that the report itself could be read."""

    ok: bool
    modules: list[ModuleReport] = Field(default_factory=list)
    detail: str = ""


class DatabaseSessions(Message):
    """The sessions that the program's processes have at the server of the operator's DSN, of one database and user.

    `same_database` says whether that is the database that the DSN names.
    """

    database: str
    user: str
    count: int
    same_database: bool


class DatabaseProbeRequest(Message):
    """What the database is expected to hold.

    `count`: whether the rows of its tables are to be counted, too; `sessions`: whether the program's are to be told.
    """

    tables: list[str] = Field(default_factory=list)
    migration: str | None = None
    count: StrictBool = False
    sessions: StrictBool = False


class CountedTable(Message):
    """How many rows a table has, and how many of them have a value in each column: neither NULL nor an empty text."""

    name: str
    rows: int
    columns: dict[str, int] = Field(default_factory=dict)


class DatabaseCount(Message):
    """What a database holds: the names of its tables, and what was counted of them within the limits.

    `uncounted` gives a reason for each table that was not; of `more_uncounted` others not even the names are told.
    """

    names: list[str] = Field(default_factory=list)
    tables: list[CountedTable] = Field(default_factory=list)
    uncounted: dict[str, str] = Field(default_factory=dict)
    more_uncounted: int = 0


class DatabaseProbe(Message):
    """What the node found with the operator's DSN; the DSN itself never leaves it.

    `connect_ms` is None where no connection came about; `round_trips_us` is empty from a node that measures none.
    `migration` is the newest of `migrations`, which are all that the table `migrations_in` names; these two are
    empty from a node that tells only of the newest. `migrations_by` is the tool whose table that is, as far as its
    columns tell, and `failed_migrations` are those that began and did not end. `tables` counts all there are.
    `unreadable_tables` gives a reason for each. `connections` are those taken of the `max_connections` that the DSN's
    user may have at most; where they are not known, `uncounted` says why. `count` is None where
    no rows were to be counted, and from a node that counts none; `sessions` where none were to be told.
    """

    ok: bool
    dialect: str | None = None
    connect_ms: int | None = None
    writable: bool = False
    migration: str | None = None
    migrations: list[str] = Field(default_factory=list)
    migrations_in: str = ""
    migrations_by: str = ""
    failed_migrations: list[str] = Field(default_factory=list)
    tables: int | None = None
    missing_tables: list[str] = Field(default_factory=list)
    unreadable_tables: dict[str, str] = Field(default_factory=dict)
    round_trips_us: list[int] = Field(default_factory=list)
    connections: int | None = None
    max_connections: int | None = None
    uncounted: str = ""
    count: DatabaseCount | None = None
    sessions: list[DatabaseSessions] | None = None
    detail: str = ""
