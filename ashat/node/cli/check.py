"""Implement `ashat-node check`: what of a node's settings, files and surroundings would keep it from working.

It reads, asks OMEGA who it is, and changes nothing. A licence is not shown to OMEGA, who would count the Mainframe from
then on.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sqlite3
import ssl
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psutil
from cryptography import x509
from sqlalchemy.engine import make_url
from tuf.api.metadata import Root

from ashat import __version__
from ashat.client.environment import is_loopback
from ashat.client.probe import SOON, certificate_finding, look_at_server
from ashat.common.documents import STATE_LIMIT, read_json
from ashat.common.files import read_bounded
from ashat.common.findings import Finding, Look, look_at_all, look_at_disk, look_at_private
from ashat.common.identifiers import check_licence_key
from ashat.errors import UsageError
from ashat.node.access.tokens import TokenFile
from ashat.node.app_process.user import program_user
from ashat.node.cli.status import is_held
from ashat.node.context import LOCK_FILE
from ashat.node.core.config import ANY_PROGRAM, SECRET_LIMIT, NodeConfig, read_secret
from ashat.node.core.db import RECORD_FILE
from ashat.node.mainframe.agent import AGENT, last_words
from ashat.node.mainframe.offer_verifier import OfferVerifier
from ashat.node.serve import ADDRESS_FILE
from ashat.protocol.messages import Role
from ashat.trust.tuf.metadata import METADATA_LIMIT, parse

SECONDS = 30.0
_LOOKS_LATER = "ashat-node status says what became of it, once the node runs"


def check(config: Path | None, data: Path | None) -> list[Finding]:
    """Look at the node of these settings, for `SECONDS` at most."""
    if config is None and data is not None:
        config = data / "node.toml"
    try:
        settings = NodeConfig.load(config, data=data)
    except UsageError as error:
        found = [
            Finding("settings", "wrong", line, "ashat-node settings lists them") for line in str(error).split("\n")
        ]
        return [_version(), *found, Finding("all else", "not looked at", "the settings cannot be read")]
    where = f"{settings.role} '{settings.name}', from {settings.file or 'flags and ASHAT_NODE_*'}"
    return [_version(), Finding("settings", "ok", where), *look_at_all(list(_looks(settings)), SECONDS)]


def _looks(config: NodeConfig) -> Iterator[Look]:
    yield Look("data", lambda: _data(config))
    yield Look("disk", lambda: look_at_disk("disk", config.data))
    yield Look("secrets", lambda: look_at_private("secrets", _secrets(config)))
    yield Look("tokens", lambda: _tokens(config))
    yield Look("port", lambda: _port(config))
    yield Look("TLS", lambda: _tls(config))
    yield Look("program", lambda: _program(config))
    if config.slots.ports:
        yield Look("slots", lambda: _slots(config))
    yield Look("database", lambda: _database(config))
    if config.role is Role.MAINFRAME:
        yield Look("licence", lambda: _licence(config))
        yield Look("root", lambda: _root(config))
        yield Look("OMEGA", lambda: _omega(config))
        return
    if config.role is Role.OMEGA:
        yield Look("root", lambda: _omegas_root(config))
    yield Look("clock", _clock)


def _version() -> Finding:
    return Finding("version", "ok", f"ashat-deploy {__version__}")


def _data(config: NodeConfig) -> Iterator[Finding]:
    if not config.data.exists():
        above = next(path for path in config.data.parents if path.exists())
        if os.access(above, os.W_OK | os.X_OK):
            yield Finding("data", "ok", f"{config.data} is not there yet; the node makes it")
        else:
            yield Finding(
                "data", "wrong", f"{config.data} is not there, and cannot be made in {above}", _as_whom(above)
            )
        return
    mode = stat.S_IMODE(config.data.stat().st_mode)
    if not config.data.is_dir():
        yield Finding("data", "wrong", f"{config.data} is no directory", "give another --data")
    elif not os.access(config.data, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("data", "wrong", f"{config.data} cannot be used by {_me()}", _as_whom(config.data))
    elif mode & 0o022:
        yield Finding("data", "wrong", f"others can write {config.data} (mode {mode:04o})", f"chmod go-w {config.data}")
    else:
        yield Finding("data", "ok", f"{config.data}, mode {mode:04o}")


def _me() -> str:
    return psutil.Process().username()


def _as_whom(path: Path) -> str:
    owner = path.stat().st_uid
    return (
        f"run it as the owner of {path}: sudo -u '#{owner}' …" if owner != os.geteuid() else f"see who may write {path}"
    )


def _secrets(config: NodeConfig) -> list[Path]:
    named = [config.tokens_path, config.license_file, config.tls_key, config.database.dsn_file, config.fleet_dsn_file]
    if config.database.dsn is not None:
        named.append(config.file)
    kept = [config.data / "audit" / "key.pem", *sorted((config.data / "trust").glob("**/*.pem"))]
    return [path for path in (*named, *kept) if path is not None]


def _tokens(config: NodeConfig) -> Iterator[Finding]:
    tokens = [] if not config.tokens_path.exists() else TokenFile(config.tokens_path).all()
    now = datetime.now(UTC)
    open_ones = [token for token in tokens if not token.expired(now)]
    add = f"ashat-node token add --data {config.data} --role owner"
    if not open_ones and config.role is not Role.MAINFRAME:
        yield Finding("tokens", "wrong", f"no token in {config.tokens_path} opens anything", add)
        return
    yield Finding("tokens", "ok", f"{len(open_ones)} open something, {len(tokens) - len(open_ones)} have expired")
    for token in open_ones:
        if token.expires is not None and token.expires - now <= SOON:
            seen = f"{token.id} ({token.name}) expires at {token.expires:%Y-%m-%d %H:%M} UTC"
            yield Finding("tokens", "warning", seen, f"ashat-node token rotate {token.id} --data {config.data}")


def _port(config: NodeConfig) -> Iterator[Finding]:
    address = f"{config.host}:{config.port}"
    if serves := _serving(config.data):
        yield Finding("port", "ok", f"the node serves on {serves}")
        return
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            yield Finding("port", "wrong", f"{address} cannot be used: {error.strerror or error}", "choose another")
            return
    yield Finding("port", "ok", f"{address} is free; the node does not run")


def _serving(data: Path) -> str:
    """Return the address on which the node of `data` serves now, as it wrote it down; "" where none runs."""
    if not ((data / LOCK_FILE).exists() and is_held(data / LOCK_FILE)):
        return ""
    try:
        return str(read_json(data / ADDRESS_FILE, limit=STATE_LIMIT)["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return "an address that it did not write down"


def _tls(config: NodeConfig) -> Iterator[Finding]:
    if config.tls_cert is None or config.tls_key is None:
        if is_loopback(config.host):
            yield Finding("TLS", "ok", "plain http, on this machine alone")
        else:
            todo = "set tls_cert and tls_key, or put a proxy that does TLS in front"
            yield Finding("TLS", "warning", f"plain http on {config.host}: tokens cross the network readable", todo)
        return
    todo = "both must be PEM, the key without a password and of that certificate"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_cert, config.tls_key, password="")
        certificate = x509.load_pem_x509_certificate(read_bounded(config.tls_cert, SECRET_LIMIT))
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        yield Finding("TLS", "wrong", f"{config.tls_cert} and {config.tls_key} cannot be used: {why}", todo)
        return
    if certificate.not_valid_before_utc > datetime.now(UTC):
        begins = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        yield Finding("TLS", "wrong", f"the certificate is not valid before {begins}", "look at the clock here")
        return
    yield certificate_finding("TLS", certificate.not_valid_after_utc, f", for {_names(certificate)}")


def _names(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no name: it has no subjectAltName"
    names = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "no name"


def _program(config: NodeConfig) -> Iterator[Finding]:
    words, what = (config.app.hook, "hook") if config.app.hook else (config.app.command, "command")
    if not words and config.app.release_command:
        words, what = config.app.release_command, "release_command"
    if not words:
        todo = "set command or hook in [app]"
        yield Finding("program", "warning", "neither a command nor a hook is set: the node starts no program", todo)
        return
    program_user(config)
    yield from map(partial(_word, what), words if what == "release_command" else words[:1])
    if config.app.user:
        yield Finding("program", "ok", f"it runs as {config.app.user}")
    else:
        todo = "set app.user (docs/node.md)"
        yield Finding("program", "warning", "it runs as the node's own user: a release can do what the node can", todo)
    if config.app.supervises and config.app.port and not config.slots.ports and not _serving(config.data):
        yield from _programs_port(config.app.port)


def _word(what: str, program: str) -> Finding:
    if "{" in program or program == ANY_PROGRAM or ("/" in program and not program.startswith("/")):
        return Finding("program", "not looked at", f"the {what} {program} is in the release")
    if (found := shutil.which(program)) is None:
        todo = f"install it, or correct app.{what}"
        return Finding("program", "wrong", f"the {what} {program} is not there, or cannot be executed", todo)
    return Finding("program", "ok", f"the {what} {found} is there")


def _programs_port(port: int, setting: str = "app.port") -> Iterator[Finding]:
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            todo = f"end it, or choose another in {setting}; after a crash of the node it may be its own program"
            yield Finding("program's port", "warning", f"something answers on port {port} already", todo)
        else:
            yield Finding("program's port", "ok", f"nothing answers on {port} yet")


def _slots(config: NodeConfig) -> Iterator[Finding]:
    settings = config.slots
    if (reload := shutil.which(settings.reload[0])) is None:
        seen = f"the reload {settings.reload[0]} is not there, or cannot be executed"
        yield Finding("slots", "wrong", seen, "install it, or correct slots.reload")
    else:
        yield Finding("slots", "ok", f"the reload {reload} is there; whether it works is not looked at")
    where = settings.snippet.parent if settings.snippet else config.data
    if not where.is_dir():
        yield Finding("slots", "wrong", f"{where}, where the snippet is to be, is no directory", f"mkdir -p {where}")
    elif not os.access(where, os.W_OK | os.X_OK):
        yield Finding("slots", "wrong", f"{_me()} cannot write the snippet in {where}", _as_whom(where))
    else:
        yield Finding("slots", "ok", f"the snippet can be written in {where}")
    for port in settings.ports if not _serving(config.data) else ():
        yield from _programs_port(port, "slots.ports")


def _database(config: NodeConfig) -> Iterator[Finding]:
    dsn = config.database.read_dsn()
    if dsn is None:
        yield Finding("database", "not looked at", "no DSN is set; deploy verify then cannot look at a database")
        return
    try:
        dialect = make_url(dsn.get_secret_value()).get_backend_name()
    except Exception:  # noqa: BLE001  whatever it is, its words may hold the password
        yield Finding("database", "wrong", "the DSN is no SQLAlchemy URL", "see docs/node.md, The database")
        return
    needs = {"postgresql": ("psycopg", "postgres"), "mariadb": ("pymysql", "mariadb"), "mysql": ("pymysql", "mariadb")}
    module, extra = needs.get(dialect, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        seen = f"{dialect} needs the module {module}, which is not installed"
        yield Finding("database", "wrong", seen, f"pip install 'ashat-deploy[{extra}]'")
        return
    yield Finding("database", "ok", f"a DSN for {dialect}; whether it answers is not looked at: deploy verify does")


def _licence(config: NodeConfig) -> Iterator[Finding]:
    path = config.license_file
    if path is None:
        raise UsageError("'license_file' is not set.")
    todo = "ashat-node licence add on OMEGA makes one; bring the key here"
    try:
        check_licence_key(read_secret(path, "license_file"))
    except UsageError as error:
        yield Finding("licence", "wrong", str(error), todo)
        return
    yield Finding("licence", "ok", f"{path} holds a key")
    yield from _agents_words(config)


def _agents_words(config: NodeConfig) -> Iterator[Finding]:
    """What the record has of what OMEGA said to the licence, and to the release."""
    if not (config.data / RECORD_FILE).exists():
        yield Finding(
            "agent", "not looked at", "whether OMEGA takes the licence: the node has not run yet", _LOOKS_LATER
        )
        return
    record = f"file:{quote(str(config.data / RECORD_FILE))}?mode=ro"
    with closing(sqlite3.connect(record, uri=True, timeout=5)) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (AGENT,)).fetchone()
    words = last_words(row[0] if row else "")
    status = words.partition(":")[0]
    verdict = {"refused": "wrong", "failed": "wrong", "unreachable": "wrong", "running": "ok"}.get(status, "warning")
    yield Finding("agent", verdict, f"when it last said something: {words or 'nothing yet'}")  # type: ignore[arg-type]


def _root(config: NodeConfig) -> Iterator[Finding]:
    if config.trust_root is None and config.unsigned_releases:
        todo = "set trust_root, and take unsigned_releases out"
        yield Finding("root", "warning", "unsigned_releases: whatever OMEGA's node offers is installed", todo)
    elif lack := OfferVerifier(config).lack():
        yield Finding("root", "wrong", lack, "deploy trust init makes it, under ~/.ashat/trust/authority/")
    else:
        yield from _roots_end(_newest_root(config))


def _newest_root(config: NodeConfig) -> Path:
    """The root that counts here: the newest one that OMEGA brought, else that of the settings."""
    followed = config.data / "trust" / "metadata" / "root.json"
    if followed.exists() or config.trust_root is None:
        return followed
    return config.trust_root


def _roots_end(path: Path) -> Iterator[Finding]:
    root = parse(read_bounded(path, METADATA_LIMIT), Root, str(path)).signed
    ends = f"{root.expires:%Y-%m-%d} UTC"
    if root.expires <= datetime.now(UTC):
        yield Finding("root", "wrong", f"version {root.version} ended on {ends}", "its holders: deploy trust renew")
    elif root.expires - datetime.now(UTC) <= SOON:
        yield Finding("root", "warning", f"version {root.version} ends on {ends}", "its holders: deploy trust renew")
    else:
        yield Finding("root", "ok", f"version {root.version} of {path}, until {ends}")


def _omegas_root(config: NodeConfig) -> Iterator[Finding]:
    kept = sorted((config.data / "trust" / "repository").glob("*.root.json"), key=_version_of)
    if config.trust_root is not None:
        yield from _roots_end(config.trust_root)
    elif kept:
        yield from _roots_end(kept[-1])
    elif config.unsigned_releases:
        yield Finding("root", "warning", "unsigned_releases: nobody has to sign", "take it out, and deploy trust init")
    else:
        todo = "deploy trust init, deploy trust publish; or nothing, for the one-person mode"
        yield Finding("root", "warning", "OMEGA has no root yet: it takes the first that is given to it", todo)


def _version_of(path: Path) -> int:
    number = path.name.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() else 0


def _clock() -> Iterator[Finding]:
    seen = "no server is asked from here; deploy doctor holds this clock against its own"
    yield Finding("clock", "not looked at", seen)


def _omega(config: NodeConfig) -> Iterator[Finding]:
    yield from look_at_server("OMEGA", config.omega, Role.OMEGA, ca=config.ca_file, insecure_http=config.insecure_http)
