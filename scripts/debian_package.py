"""Make a Debian package of the node, from the commit's own lock: `make deb`.

    python scripts/debian_package.py [--python /usr/bin/python3] [--output dist]

The package holds a virtual environment of Debian's Python in /usr/lib/ashat-node, with the packages that `uv.lock`
names, drivers for PostgreSQL and MariaDB included. It fits the minor version of Python that it was made with. The unit
is that of docs/guide.md. The files have the time of the commit. `DEBFULLNAME` and `DEBEMAIL`, or git's user.name and
user.email, say who maintains it; lintian looks at the package where it is installed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from email.utils import format_datetime, formataddr
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "deploy" / "debian"
NAME = "ashat-node"
HOME = Path("usr/lib", NAME)
_UNIT = re.compile(r"```ini\n# /etc/systemd/system/ashat-node\.service\n(.*?)```", re.DOTALL)
_COMMAND = f"""\
#!/{HOME}/bin/python -P
import sys

from ashat.node.cli.main import main

sys.exit(main())
"""


class PackageError(Exception):
    """The package cannot be made; the message says why."""


def main() -> int:
    """Make the package and have lintian look at it; 1, with a line, where either fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, default=Path("/usr/bin/python3"), help="Debian's Python")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    try:
        package = build(options.python, options.output)
        print(package)
        look(package)
    except PackageError as error:
        print(f"make deb: {error}", file=sys.stderr)
        return 1
    return 0


def build(python: Path, output: Path) -> Path:
    """Make the package for `python` in `output`; where it is.

    Raises:
        PackageError: a tool is missing or refused, or nobody maintains the package.
    """
    for tool in ("dpkg-deb", "git"):
        if shutil.which(tool) is None:
            raise PackageError(f"{tool} is not installed: this is made on Debian, or on what comes of it.")
    if not python.exists():
        raise PackageError(f"{python} is not there: name Debian's Python with --python.")
    about = _about(python)
    output.mkdir(parents=True, exist_ok=True)
    target = output.resolve() / f"{NAME}_{about['version']}_{about['architecture']}.deb"
    with tempfile.TemporaryDirectory(prefix="ashat-deb-") as name:
        tree = Path(name, "tree")
        tree.mkdir(mode=0o755)
        _environment(tree / HOME, python, Path(name))
        _documents(tree, about)
        _control(tree, about)
        when = int(about["epoch"])
        _same_modes_and_times(tree, when)
        made = {**os.environ, "SOURCE_DATE_EPOCH": str(when)}
        _run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(target), env=made)
    return target


def look(package: Path) -> None:
    """Have lintian look at the package.

    Raises:
        PackageError: it has an error or a warning to tell.
    """
    if shutil.which("lintian") is None:
        print("lintian is not installed: nobody has looked at the package.", file=sys.stderr)
        return
    found = subprocess.run(
        ["lintian", "--fail-on", "error,warning", "--allow-root", str(package)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if found.returncode:
        raise PackageError(f"lintian complains:\n{found.stdout}{found.stderr}")


def _about(python: Path) -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    minor = int(_run(str(python), "-c", "import sys; print(sys.version_info[1])"))
    return {
        "version": project["version"],
        "architecture": _run("dpkg", "--print-architecture"),
        "maintainer": _maintainer(),
        "python": f"3.{minor}",
        "next_python": f"3.{minor + 1}",
        "epoch": os.environ.get("SOURCE_DATE_EPOCH") or _run("git", "-C", str(ROOT), "log", "-1", "--format=%ct"),
    }


def _maintainer() -> str:
    def asked(variable: str, setting: str) -> str:
        return os.environ.get(variable) or _run("git", "-C", str(ROOT), "config", "--default", "", setting)

    name, address = asked("DEBFULLNAME", "user.name"), asked("DEBEMAIL", "user.email")
    if not name or "@" not in address:
        raise PackageError("nobody maintains it: set DEBFULLNAME and DEBEMAIL.")
    return formataddr((name, address))


def _environment(home: Path, python: Path, scratch: Path) -> None:
    """Make the virtual environment `home`, without what only a build or an interactive shell uses."""
    uv = str(ROOT / "scripts" / "uv")
    _run(uv, "build", "--quiet", "--wheel", "--out-dir", str(scratch))
    locked = scratch / "lock.txt"
    drivers = ("--extra", "postgres", "--extra", "mariadb")
    _run(uv, "export", "--quiet", "--frozen", "--no-emit-project", "--no-default-groups", *drivers, "-o", str(locked))
    _run(uv, "venv", "--quiet", "--no-project", "--python", str(python), str(home))
    install = (uv, "pip", "install", "--quiet", "--link-mode", "copy", "--python", str(home / "bin" / "python"))
    _run(*install, "-r", str(locked))
    _run(*install, "--no-deps", *map(str, scratch.glob("*.whl")))
    for path in (home / "bin").iterdir():
        if not path.name.startswith("python"):
            path.unlink()
    for odd in (home / ".lock", home / "CACHEDIR.TAG", *home.rglob(".gitignore")):
        odd.unlink(missing_ok=True)
    for cache in list(home.rglob("__pycache__")):
        shutil.rmtree(cache)
    (home / "bin" / NAME).write_text(_COMMAND, "utf-8")
    (home / "bin" / NAME).chmod(0o755)


def _documents(tree: Path, about: dict[str, str]) -> None:
    commands = tree / "usr" / "bin"
    commands.mkdir(parents=True)
    (commands / NAME).symlink_to(Path("..", *HOME.parts[1:], "bin", NAME))
    unit = _UNIT.search((ROOT / "docs" / "guide.md").read_text("utf-8"))
    if unit is None:
        raise PackageError("docs/guide.md has no ashat-node.service.")
    _write(tree / "lib/systemd/system" / f"{NAME}.service", unit[1].replace("/opt/ashat/bin/", "/usr/bin/"))
    licence = (ROOT / "LICENSE").read_text("utf-8").partition("\n\n")[2].rstrip().splitlines()
    indented = "\n".join(f" {line}" if line.strip() else " ." for line in licence)
    documents = tree / "usr/share/doc" / NAME
    _write(documents / "copyright", (RECIPE / "copyright").read_text("utf-8").format(licence=indented))
    date = format_datetime(datetime.fromtimestamp(int(about["epoch"]), UTC))
    entry = f"{NAME} ({about['version']}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n"
    _zipped(documents / "changelog.gz", f"{entry} -- {about['maintainer']}  {date}\n")
    _zipped(tree / "usr/share/man/man1" / f"{NAME}.1.gz", (RECIPE / f"{NAME}.1").read_text("utf-8"))
    _write(tree / "usr/share/lintian/overrides" / NAME, (RECIPE / "lintian-overrides").read_text("utf-8"))


def _control(tree: Path, about: dict[str, str]) -> None:
    kilobytes = sum(-(-path.lstat().st_size // 1024) for path in tree.rglob("*"))
    control = (RECIPE / "control").read_text("utf-8").format(**about, kilobytes=kilobytes)
    _write(tree / "DEBIAN" / "control", control)
    for script in ("postinst", "prerm", "postrm"):
        _write(tree / "DEBIAN" / script, (RECIPE / script).read_text("utf-8"))
        (tree / "DEBIAN" / script).chmod(0o755)


def _same_modes_and_times(tree: Path, when: int) -> None:
    """Give every file the mode that Debian has for it, and the commit's time, so that a build can be repeated."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or (os.access(path, os.X_OK) and path.read_bytes()[:2] == b"#!")
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (when, when), follow_symlinks=False)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _zipped(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _run(*words: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900, env=env)
    if done.returncode:
        raise PackageError(f"{' '.join(words[:2])} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
