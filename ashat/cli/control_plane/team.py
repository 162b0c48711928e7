"""The settings of a team's control plane: several API servers and one set of services on one PostgreSQL and one Redis.

There are two files, so that no worker and no command holds what only the servers need: `server.env` has the addresses
of the databases, `client.env` the address and the password of the API. Both are read by systemd and by a shell.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ashat.cli.control_plane.children import QUIET, supervisor_environment
from ashat.errors import ControlPlaneError, UsageError
from ashat.settings import Settings

SERVER_FILE, CLIENT_FILE = "server.env", "client.env"
DATABASE: Final = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
REDIS: Final = "PREFECT_REDIS_MESSAGING_URL"
PASSWORD: Final = "PREFECT_SERVER_API_AUTH_STRING"  # noqa: S105  a name
API: Final = "PREFECT_API_URL"
PUBLIC: Final = "PREFECT_UI_URL"
# What the proxy of people shows with each name that it gives.
SECRET: Final = "ASHAT_PROXY_SECRET"  # noqa: S105  a name
LEDGER: Final = "ASHAT_LEDGER_URL"
# All that several servers have to share is in Redis: messages, their order, leases, work of the services.
_SHARED = {
    "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
    "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
    "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
}
_UNSAFE = re.compile(r"[\s'\"\\$`\x00-\x1f\x7f]")
_PLAIN = re.compile(r"[\w@%+=:,./?-]*", re.ASCII)
_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class TeamAddresses:
    """Where a team's databases are, at which address machines reach its API, and at which people reach its pages."""

    database: str
    ledger: str
    redis: str
    public: str
    people: str = ""


def check_addresses(given: TeamAddresses) -> TeamAddresses:
    """Return the addresses as Prefect and the ledger want them.

    Raises:
        UsageError: one is none, or has a character that a settings file would need to quote.
    """
    for option, value in (("--database", given.database), ("--ledger", given.ledger), ("--redis", given.redis)):
        if _UNSAFE.search(value):
            raise UsageError(f"{option} has a blank, a quote, a backslash, $ or `: write it as %XX in an address.")
    database = _postgresql("--database", given.database).replace("postgresql://", "postgresql+asyncpg://", 1)
    ledger = _postgresql("--ledger", given.ledger)
    if _place(ledger) == _place(database):
        raise UsageError("--database and --ledger are one database: give the ledger one of its own.")
    if _read("--redis", given.redis).scheme not in ("redis", "rediss", "redis+sentinel", "rediss+sentinel"):
        raise UsageError("--redis is an address such as redis://redis.example.com:6379/0.")
    public = public_address("--url", given.public)
    people = public_address("--people-url", given.people) if given.people else public
    return TeamAddresses(database, ledger, given.redis, public, people)


def public_address(name: str, url: str) -> str:
    """Return the address at which a proxy answers, without a path; `name` is the setting's.

    Raises:
        UsageError: it is none, or it has a path, or it is no HTTPS and not on this machine.
    """
    parts = _read(name, url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if _UNSAFE.search(url) or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
        raise UsageError(f"{name} is the address of a proxy, such as https://prefect.example.com, without a path.")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise UsageError(f"{name} begins with https://: a password and a gate's answer go over it.")
    return f"{parts.scheme}://{parts.netloc}"


def _read(name: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  it is read only now
    except ValueError:  # its words may have a part of the password
        raise UsageError(
            f"{name} is no address: its host or its port cannot be read. Write / and @ of a password as %2F and %40."
        ) from None
    return parts


def _postgresql(option: str, url: str) -> str:
    parts = _read(option, url)
    if parts.scheme.partition("+")[0] != "postgresql" or not parts.hostname or len(parts.path) < 2:
        raise UsageError(f"{option} is an address such as postgresql://user@db.example.com/name.")
    return url.replace(parts.scheme, "postgresql", 1)


def _place(url: str) -> tuple[str | None, int, str]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or 5432, parts.path


def files_for(addresses: TeamAddresses, password: str = "") -> dict[str, str]:
    """Write the two settings files, by name; `password` is made where none is given."""
    auth = password or f"admin:{secrets.token_urlsafe(32)}"
    server = {DATABASE: addresses.database, REDIS: addresses.redis, PASSWORD: auth}
    if addresses.people != addresses.public:
        server[SECRET] = secrets.token_urlsafe(32)
    client = {"PREFECT_API_AUTH_STRING": auth}
    both = {API: f"{addresses.public}/api", PUBLIC: addresses.people, LEDGER: addresses.ledger}
    return {SERVER_FILE: _env_file(server | both), CLIENT_FILE: _env_file(client | both)}


def _env_file(values: dict[str, str]) -> str:
    # kubectl takes quotes for a part of the value, and a shell takes some characters for its own.
    return "".join(f"{name}={value if _PLAIN.fullmatch(value) else repr(value)}\n" for name, value in values.items())


def server_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a team's API server and services, made of what `server.env` says.

    Raises:
        ControlPlaneError: a setting is missing; the message names it.
        UsageError: one is no address, or `PREFECT_UI_URL` none of a proxy.
    """
    lacking = [name for name in (DATABASE, REDIS, PASSWORD, API, PUBLIC, LEDGER) if not os.environ.get(name)]
    if lacking:
        raise ControlPlaneError(
            f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not set: deploy team init writes the file "
            f"{SERVER_FILE} that says it; read it first (set -a; . {SERVER_FILE}; set +a)."
        )
    _read(REDIS, os.environ[REDIS])
    if _read(DATABASE, os.environ[DATABASE]).scheme.partition("+")[0] != "postgresql":
        raise ControlPlaneError(f"{DATABASE} is not PostgreSQL, and several servers cannot share anything else.")
    if ":" not in os.environ[PASSWORD]:
        raise ControlPlaneError(f"{PASSWORD} is user:password, as admin:… in {SERVER_FILE}.")
    public = public_address(PUBLIC, os.environ[PUBLIC])
    own = {name: os.environ[name] for name in os.environ if name.startswith("PREFECT_") and "_PROFILE" not in name}
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"):
        own.pop(name, None)
    kept = {k: v for k, v in supervisor_environment(settings).items() if not k.startswith("PREFECT_")}
    return (
        {
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "2592000",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_UI_V2_ENABLED": "false",
            "PREFECT_SERVER_DOCKET_URL": os.environ[REDIS],
        }
        | kept
        | own
        | _SHARED
        | QUIET
        | {
            "PREFECT_HOME": str(settings.home.resolve() / "prefect"),
            # `deploy team upgrade` does both, in one process.
            "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
            "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": public,
            "PREFECT_SERVER_UI_API_URL": f"{public}/api",
            "PREFECT_UI_API_URL": f"{public}/api",
        }
    )


def public_addresses() -> list[str]:
    """List the addresses at which the proxies in front of the API servers answer: machines', then people's.

    Raises:
        UsageError: one is none.
    """
    machines = public_address(API, os.environ[API].rstrip("/").removesuffix("/api"))
    return list(dict.fromkeys([machines, public_address(PUBLIC, os.environ[PUBLIC])]))


def without_servers_own(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment without what only the servers need: the databases' addresses and the like."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_", "PREFECT_REDIS_"))
        and name not in ("PREFECT_SERVER_DOCKET_URL", PASSWORD)
    }


def require_redis(url: str) -> None:
    """Ask Redis for a sign of life.

    Raises:
        ControlPlaneError: the extra `team` is not installed, or Redis does not answer or refuses.
    """
    try:
        import redis
        from prefect_redis.connection import redis_from_url  # type: ignore[import-untyped]
    except ImportError:
        raise ControlPlaneError(
            "A team's servers share Redis, which needs the extra 'team': pip install "
            "'ashat-deploy[operator,postgres,team]'."
        ) from None
    try:
        client = redis_from_url(url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_CONNECT_SECONDS)
        client.ping()
        client.close()
    except (redis.RedisError, OSError, ValueError) as error:
        raise ControlPlaneError(f"Redis does not answer ({_hidden(url)}): {_first_line(error)}.") from None


def _hidden(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def write_files(directory: Path, files: dict[str, str]) -> None:
    """Write the settings files, mode 0600, into `directory`.

    Raises:
        UsageError: one is there already.
    """
    from ashat.common.files import create_file, make_directory

    make_directory(directory, mode=0o700)
    if there := [name for name in files if (directory / name).exists()]:
        raise UsageError(f"{directory / there[0]} is there already: move it away to begin anew. Nothing was changed.")
    for name, text in files.items():
        create_file(directory / name, text.encode())
