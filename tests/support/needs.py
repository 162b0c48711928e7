"""What a test may need of the machine, and whether it is there.

`@requires_postgresql` skips a test with a reason where PostgreSQL does not answer. `ASHAT_TEST_REQUIRE=postgresql,
mariadb,redis,chromium,softhsm,mount,root,cgroup,openssl,sqlite3,git-lfs,registries,caddy` turns such a skip into a
failure, so that CI loses no test unnoticed.
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
requires_reflinks = pytest.mark.needs("reflinks")
requires_registries = pytest.mark.needs("registries")
requires_cgroup = pytest.mark.needs("cgroup")
requires_systemd = pytest.mark.needs("systemd")
requires_openssl = pytest.mark.needs("openssl")
requires_sqlite3 = pytest.mark.needs("sqlite3")
requires_git_lfs = pytest.mark.needs("git-lfs")
requires_caddy = pytest.mark.needs("caddy")
requires_nginx = pytest.mark.needs("nginx")
requires_haproxy = pytest.mark.needs("haproxy")
requires_promtool = pytest.mark.needs("promtool")
requires_compose = pytest.mark.needs("compose")
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
        "registries": _registries,
        "reflinks": lambda: _mount() or ("" if shutil.which("mkfs.xfs") else "there is no mkfs.xfs on the PATH"),
        "cgroup": _cgroup,
        "systemd": lambda: "" if shutil.which("systemd-analyze") else "there is no systemd-analyze on the PATH",
        "openssl": lambda: "" if shutil.which("openssl") else "there is no openssl on the PATH",
        "sqlite3": lambda: "" if shutil.which("sqlite3") else "there is no sqlite3 on the PATH",
        "git-lfs": lambda: "" if shutil.which("git-lfs") else "there is no git-lfs on the PATH",
        "caddy": lambda: "" if shutil.which("caddy") else "there is no caddy on the PATH",
        "nginx": lambda: "" if shutil.which("nginx") and shutil.which("openssl") else "there is no nginx on the PATH",
        "haproxy": lambda: "" if shutil.which("haproxy") else "there is no haproxy on the PATH",
        "promtool": lambda: "" if shutil.which("promtool") else "there is no promtool on the PATH",
        "compose": lambda: "" if shutil.which("docker-compose") else "there is no docker-compose on the PATH",
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


def _registries() -> str:
    """Ask PyPI, npm and Debian for a package each, through their own clients."""
    with tempfile.TemporaryDirectory() as directory:
        asked = (
            ["pip", "download", "--quiet", "--no-deps", "--dest", directory, "tzdata"],
            ["npm", "view", "semver@7.6.3", "version"],
            ["apt-get", "download", "--print-uris", "linux-libc-dev"],
        )
        for words in asked:
            if shutil.which(words[0]) is None:
                return f"there is no program {words[0]}"
            try:
                done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=directory)
            except subprocess.TimeoutExpired:
                return f"{' '.join(words)} does not end within a minute"
            if done.returncode:
                return f"{' '.join(words)}: {done.stderr.strip()[-200:]}"
    return "" if shutil.which("dpkg-deb") else "there is no program dpkg-deb"


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
