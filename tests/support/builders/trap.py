"""A directory full of traps: whatever is imported from it, or read as Prefect's settings, leaves a mark."""

from __future__ import annotations

from pathlib import Path

# Modules of the standard library, of ours, and what Python imports of itself.
_MODULES = ("platform", "secrets", "random", "ashat", "prefect", "uvicorn", "sitecustomize", "usercustomize")
_PACKAGES = ("tasks", "flows", "blocks")


class Trap:
    """Traps in `directory`, which is made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._sprung = directory / "sprung"
        directory.mkdir()
        code = f"import os\nos.close(os.open({str(self._sprung)!r} + '-' + __name__, os.O_CREAT))\n"
        for name in _MODULES:
            (directory / f"{name}.py").write_text(code)
        for name in _PACKAGES:
            (directory / name).mkdir()
            (directory / name / "__init__.py").write_text(code)
        logging = directory / "logging.yml"
        logging.write_text(
            "version: 1\nformatters:\n  trap:\n    (): subprocess.getoutput\n"
            f"    cmd: touch {self._sprung}-prefect-settings\n"
        )
        (directory / "prefect.toml").write_text(f"[logging]\nconfig_path = '{logging}'\n")
        (directory / "pyproject.toml").write_text(f"[tool.prefect.logging]\nconfig_path = '{logging}'\n")
        (directory / ".env").write_text(f"PREFECT_LOGGING_CONFIG_PATH={logging}\n")

    def sprung(self) -> list[str]:
        """What was taken from the directory."""
        return sorted(path.name for path in self.directory.iterdir() if path.name.startswith(self._sprung.name))
