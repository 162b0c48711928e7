"""What a test may need of the machine, and whether it is there.

`@requires_postgresql` skips a test with a reason where PostgreSQL does not answer. `ASHAT_TEST_REQUIRE=postgresql,
mariadb,redis,chromium,softhsm,mount,root,cgroup` turns such a skip into a failure, so that CI loses no test unnoticed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from functools import cache

import pytest
import sqlalchemy as sa

POSTGRESQL_ADMIN = os.environ.get("ASHAT_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
MARIADB_ADMIN = os.environ.get("ASHAT_TEST_MARIADB", "mariadb+pymysql://root@127.0.0.1:3306/mysql")
REDIS_ADDRESS = ("127.0.0.1", 6379)
SOFTHSM_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
# One that any user of this machine can run, as the one of our environment may not be.
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/bin") or ""
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")

requires_postgresql = pytest.mark.needs("postgresql")
requires_mariadb = pytest.mark.needs("mariadb")
requires_redis = pytest.mark.needs("redis")
requires_chromium = pytest.mark.needs("chromium")
requires_root = pytest.mark.needs("root")
requires_softhsm = pytest.mark.needs("softhsm")
requires_mount = pytest.mark.needs("mount")
requires_cgroup = pytest.mark.needs("cgroup")
requires_systemd = pytest.mark.needs("systemd")
requires_faketime = pytest.mark.needs("faketime")


def required() -> frozenset[str]:
    """What must not be skipped in this run."""
    return frozenset(name.strip() for name in os.environ.get("ASHAT_TEST_REQUIRE", "").split(",") if name.strip())


@cache
def missing(need: str) -> str:
    """Why `need` cannot be used here; "" where it can.

    Raises:
        LookupError: nobody knows that need.
    """
    checks = {
        "postgresql": _postgresql,
        "mariadb": _mariadb,
        "redis": _redis,
        "chromium": _chromium,
        "softhsm": _softhsm,
        "mount": _mount,
        "root": _root,
        "cgroup": _cgroup,
        "systemd": lambda: "" if shutil.which("systemd-analyze") else "there is no systemd-analyze on the PATH",
        "faketime": lambda: "" if shutil.which("faketime") else "there is no faketime on the PATH",
    }
    if need not in checks:
        raise LookupError(f"{need!r} is not one of {', '.join(checks)}")
    return checks[need]()


def chromium_path() -> str | None:
    """The browser's executable, None where there is none."""
    return next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)


def softhsm_library() -> str | None:
    """The PKCS#11 library of SoftHSM, None where it is not installed."""
    return next((place for place in SOFTHSM_PLACES if os.path.exists(place)), None)


def _postgresql() -> str:
    return _refusal("PostgreSQL", POSTGRESQL_ADMIN)


def _mariadb() -> str:
    return _refusal("MariaDB", MARIADB_ADMIN)


def _refusal(what: str, url: str) -> str:
    try:
        engine = sa.create_engine(url, connect_args={"connect_timeout": 3})
        with engine.connect() as connection:
            connection.execute(sa.text("select 1"))
        engine.dispose()
    except (sa.exc.DBAPIError, ImportError) as error:
        address = sa.make_url(url)
        return f"{what} does not answer at {address.host}:{address.port}: {str(error).splitlines()[0]}"
    return ""


def _redis() -> str:
    try:
        with socket.create_connection(REDIS_ADDRESS, timeout=3) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except OSError as error:
        return f"Redis does not answer at 127.0.0.1:6379: {error}"
    return "" if answer.startswith(b"+PONG") else f"What answers at 127.0.0.1:6379 is no Redis: {answer!r}"


def _chromium() -> str:
    return "" if chromium_path() else "there is no Chromium on the PATH"


def _softhsm() -> str:
    if softhsm_library() is None or shutil.which("softhsm2-util") is None:
        return "SoftHSM is not installed (Debian: softhsm2)"
    return "" if importlib.util.find_spec("pkcs11") else "python-pkcs11 is not installed"


def _mount() -> str:
    if shutil.which("mount") is None:
        return "there is no program mount"
    with tempfile.TemporaryDirectory() as directory:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], capture_output=True, text=True, timeout=30)
        if tried.returncode:
            return f"this user may mount nothing here: {tried.stderr.strip()}"
        subprocess.run(["umount", "--lazy", directory], check=True, timeout=30)
    return ""


def _root() -> str:
    if os.geteuid() != 0:
        return "only root can run something as another user"
    return "" if SYSTEM_PYTHON else "there is no python3 in /usr/bin that another user could run"


def cgroup_root() -> str:
    """Where cgroup v2 is mounted; "" where it is not."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    return next((fields[4] for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"), "")


def _cgroup() -> str:
    try:
        root = cgroup_root()
    except OSError:
        return "there is no /proc/self/mountinfo, so no cgroup v2"
    return "" if root and os.access(root, os.W_OK) else "no group can be made in cgroup v2 here"
