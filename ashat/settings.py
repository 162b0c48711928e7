"""Where things are: one place for every `ASHAT_*` setting of the library and the `deploy` command.

The node has its own settings (`ashat.node.core.config`): it runs on other people's machines.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ashat.common.home import home
from ashat.common.inherited import never_travels
from ashat.errors import UsageError

_TEN_YEARS = 10 * 365 * 86400


class Settings(BaseSettings):
    """Read from the environment at each `Settings()`; nothing is cached across processes."""

    model_config = SettingsConfigDict(env_prefix="ASHAT_", extra="ignore")

    home: Path = Field(default_factory=home, description="Every file of ours is under it.")
    ledger_url: str = Field(default="", description="SQLAlchemy URL of the ledger; empty is SQLite under the home.")
    gate_timeout: float = Field(
        default=7 * 86400, gt=0, le=_TEN_YEARS, description="Seconds that a gate waits for a person."
    )
    approval_lifetime: float = Field(
        default=365 * 86400, ge=60, le=_TEN_YEARS, description="Seconds for which an approval's signatures hold."
    )
    lease_wait: float = Field(
        default=900, ge=0, le=_TEN_YEARS, description="Seconds to wait for a server that another update holds."
    )
    lease_seconds: float = Field(default=60, gt=0, le=3600, description="Seconds that a crash keeps a server lent.")
    mainframe_timeout: float = Field(
        default=300, ge=0, le=_TEN_YEARS, description="Seconds to wait for Mainframes to report."
    )
    rollout_policy: str = Field(
        default="", description="The rollout policy that says in which waves Mainframes get a release; else `default`."
    )
    connect_timeout: float = Field(
        default=5, gt=0, le=_TEN_YEARS, description="Seconds to wait for a server's connection."
    )
    read_timeout: float = Field(default=60, gt=0, le=_TEN_YEARS, description="Seconds to wait for a server's answer.")
    switch_timeout: float = Field(
        default=600, gt=0, le=_TEN_YEARS, description="Seconds to wait for a server to change what it runs."
    )
    remind_after: float = Field(
        default=86400, ge=0, le=_TEN_YEARS, description="Seconds without an answer until people are reminded; 0: never."
    )
    escalate_before: float = Field(
        default=86400,
        ge=0,
        le=_TEN_YEARS,
        description="Seconds before a gate closes at which it is escalated; 0: never.",
    )
    notify: str = Field(default="", description="Notification blocks to tell, as type/name, separated by commas.")
    retries: int = Field(default=4, ge=0, le=20, description="How often a task tries again what can pass by itself.")
    retry_delay: float = Field(
        default=1.0, ge=0, le=3600, description="Seconds before the first retry; doubles each time."
    )
    windows_names: bool = Field(
        default=True, description="Refuse names that Windows cannot hold, or that differ only in case."
    )

    reconcile_seconds: float = Field(
        default=60,
        ge=0,
        le=120,
        description="Seconds between two looks of the control plane at record and servers; 0: it does not look.",
    )
    pass_environment: str = Field(
        default="", description="More variables for workers and flow runs to inherit, by name, separated by commas."
    )

    @cached_property
    def effective_ledger_url(self) -> str:
        """`ledger_url`, or SQLite at `<home>/ledger.db`."""
        return self.ledger_url or f"sqlite:///{self.home / 'ledger.db'}"

    def passed_variables(self) -> set[str]:
        """Split `pass_environment` into names.

        Raises:
            UsageError: it names a secret of ours, which no worker needs.
        """
        names = {name.strip() for name in self.pass_environment.split(",") if name.strip()}
        if secret := next(filter(never_travels, sorted(names)), None):
            raise UsageError(f"ASHAT_PASS_ENVIRONMENT names {secret}, which one command reads and no worker needs.")
        return names

    def ensure_home(self) -> Path:
        """Make the home directory, mode 0700, if it is not there; return it."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.home
