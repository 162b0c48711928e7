"""A node's settings: flags, then `ASHAT_NODE_*`, then the TOML file, in that order of who wins.

In the environment a table's setting is written with two underscores (`ASHAT_NODE_APP__PORT=8080`). Relative paths
of the file are relative to the file. `{port}`, `{release}` and `{data}` in the program's words stand for its port,
its release directory and its own data directory.
"""

from __future__ import annotations

import difflib
import os
import shlex
import stat
from pathlib import Path
from typing import Any, Literal, Self, get_origin
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ashat.common.documents import load_toml
from ashat.common.files import read_bounded
from ashat.common.windows import Window
from ashat.errors import DocumentError, UsageError
from ashat.protocol.messages import Line, Role
from ashat.protocol.object_address import check_object_address

PREFIX = "ASHAT_NODE_"
_DAY = 86_400
LOWEST_RATE = 50_000
FILE_LIMIT = 1024 * 1024
ANY_PROGRAM = "*"
SECRET_LIMIT = 64 * 1024
_PATHS = ("data", "token_file", "license_file", "ca_file", "tls_cert", "tls_key", "trust_root", "fleet_dsn_file")


class AppConfig(BaseModel):
    """`[app]`: the program that the node runs, or the hook that has it run by something else."""

    model_config = ConfigDict(extra="forbid")

    command: list[str] = Field(default=[], description="The program and its words; the node supervises it.")
    release_command: list[str] = Field(
        default=[],
        description="Without a command: the programs that a release's own [app] command may name; * allows any.",
    )
    hook: list[str] = Field(default=[], description="Run after each switch instead, to restart the program.")
    url: str = Field(default="", description="Where the program answers; by default 127.0.0.1 and its port.")
    port: int = Field(default=0, ge=0, le=65535, description="The program's port; 0 picks a free one and keeps it.")
    ca_file: Path | None = Field(default=None, description="The CA that signed the program's certificate, if private.")
    health_path: str = Field(default="/health", pattern="^/", description="Answers 2xx while the program is well.")
    start_timeout: float = Field(
        default=60, gt=0, le=_DAY, description="Seconds in which a release must become healthy."
    )
    health_timeout: float = Field(default=5, gt=0, le=_DAY, description="Seconds that one look at the health may take.")
    health_interval: float = Field(default=5, gt=0, le=_DAY, description="Seconds between looks while nothing changes.")
    settle: float = Field(
        default=3, ge=0, le=_DAY, description="Seconds of unbroken health after which a switch holds."
    )
    stop_timeout: float = Field(default=10, gt=0, le=_DAY, description="Seconds from SIGTERM to SIGKILL.")
    hook_timeout: float = Field(default=60, gt=0, le=_DAY, description="Seconds that the hook may take.")
    restart_delay: float = Field(
        default=0.5, gt=0, le=_DAY, description="Seconds before the first restart; doubles each time."
    )
    restart_delay_limit: float = Field(
        default=30, gt=0, le=_DAY, description="The longest that the delay becomes, in seconds."
    )
    migrate: Literal["", "run", "skip", "refuse"] = Field(
        default="",
        description="A release's migrate step: run, skip or refuse; by default run by the user of app.command, "
        "refused with a hook.",
    )
    migrate_timeout: float = Field(
        default=3600, gt=0, le=_DAY, description="The longest that a release's migrate step may take, in seconds."
    )
    report_output: bool = Field(
        default=True, description="On a Mainframe: tell OMEGA the last lines of a program that did not start."
    )
    env: dict[str, str] = Field(default={}, description="More environment for the program or the hook.")
    user: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9_.@\\-]*$",
        description="The user as whom the program or the hook runs; the node must be root.",
    )

    @field_validator("command", "hook", "release_command", mode="before")
    @classmethod
    def _one_word_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) and value else value

    @property
    def migrates(self) -> Literal["run", "skip", "refuse"]:
        """What becomes of a release's migrate step here; where the node runs no program, it is left out."""
        if self.migrate:
            return self.migrate
        return "refuse" if self.hook else "run" if self.supervises else "skip"

    @property
    def supervises(self) -> bool:
        """Whether the node runs a program itself."""
        return bool(self.command or self.release_command)

    @property
    def runs(self) -> bool:
        """Whether anything runs here: by the node, or by its hook."""
        return self.supervises or bool(self.hook)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.command and self.hook:
            raise ValueError("has both 'command' and 'hook'; keep the one that starts the program")
        if self.release_command and self.hook:
            raise ValueError("has both 'release_command' and 'hook'; keep the one that starts the program")
        if self.hook and not self.url:
            raise ValueError("has a 'hook' but no 'url'; say where the program answers, so its health can be watched")
        return self


class SlotsConfig(BaseModel):
    """`[slots]`: two ports for the program, of which a proxy sends the traffic to one (blue-green)."""

    model_config = ConfigDict(extra="forbid")

    ports: list[int] = Field(
        default=[], description="Two ports: a new release starts on the free one, beside what runs (blue-green)."
    )
    proxy: Literal["nginx", "caddy", "haproxy"] = Field(
        default="nginx", description="For which proxy the snippet is written: nginx, caddy or haproxy."
    )
    snippet: Path | None = Field(default=None, description="The file that says where the traffic goes.")
    backend: str = Field(
        default="raos", pattern=r"^[A-Za-z0-9_.-]+$", description="The name of HAProxy's backend in the snippet."
    )
    reload: list[str] = Field(default=[], description="Has the proxy read the snippet; it must end with status 0.")
    reload_timeout: float = Field(
        default=30, gt=0, le=_DAY, description="Seconds that the reload may take, and again the look at slots.url."
    )
    url: str = Field(
        default="",
        description="Where the proxy answers: the health is asked there after a reload, and deploy verify asks there.",
    )
    drain: float = Field(
        default=30, ge=0, le=_DAY, description="Seconds for which a slot is left alone once its traffic has gone."
    )
    warm: float = Field(
        default=300, ge=0, le=_DAY, description="Seconds for which the release before runs on, for the way back."
    )

    @field_validator("reload", mode="before")
    @classmethod
    def _one_word_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) and value else value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.ports:
            if self.model_fields_set - {"ports"}:
                raise ValueError("needs 'ports', two of them, such as [8001, 8002]")
            return self
        if len(self.ports) != 2 or self.ports[0] == self.ports[1]:
            raise ValueError("'ports' are two different ones, such as [8001, 8002]")
        if not all(1 <= port <= 65535 for port in self.ports):
            raise ValueError("a port of 'ports' is from 1 to 65535")
        if self.snippet is None or not self.reload:
            raise ValueError(
                "needs 'snippet', the file that the proxy reads, and 'reload', the command that has it do so"
            )
        if self.warm < self.drain:
            raise ValueError("'warm' must be at least 'drain'")
        return self


class DatabaseConfig(BaseModel):
    """`[database]`: the program's database, which the node looks at when asked to."""

    model_config = ConfigDict(extra="forbid")

    dsn: SecretStr | None = Field(default=None, description="A SQLAlchemy URL; it never leaves the node.")
    dsn_file: Path | None = Field(default=None, description="A file that holds it, readable by the owner only.")
    timeout: float = Field(default=10, gt=0, le=_DAY, description="Seconds that the look at the database may take.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.dsn and self.dsn_file:
            raise ValueError("has both 'dsn' and 'dsn_file'; keep one")
        return self

    def read_dsn(self) -> SecretStr | None:
        """Read the DSN, from the setting or its file; None where there is none.

        Raises:
            UsageError: the file cannot be read, or others may read it.
        """
        if self.dsn_file is None:
            return self.dsn
        return SecretStr(read_secret(self.dsn_file, "database.dsn_file"))


class ObjectsConfig(BaseModel):
    """`[objects]`: how OMEGA's Mainframes get the bytes of a release."""

    model_config = ConfigDict(extra="forbid")

    redirect: str = Field(
        default="",
        description="Where Mainframes are sent for objects, such as https://cdn.example.com/{digest}; without it they "
        "come from OMEGA itself.",
    )
    downloads: int = Field(
        default=100, ge=1, le=100_000, description="How many Mainframes download from OMEGA at once; others wait."
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.redirect:
            from ashat.client.environment import is_loopback  # which loads httpx

            try:
                check_object_address(self.redirect, plain_http=is_loopback(urlsplit(self.redirect).hostname or ""))
            except (UsageError, ValueError) as error:
                raise ValueError(f"redirect: {error}".rstrip(".")) from None
        return self


class NodeConfig(BaseSettings):
    """Everything that the operator of a node decides. Build it with `load`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid")

    role: Role = Field(description="public, omega or mainframe.")
    name: Line = Field(default="", max_length=63, description="What others call this node; by default its role.")
    host: str = Field(default="127.0.0.1", min_length=1, description="The address to serve on.")
    port: int = Field(default=8470, ge=0, le=65535, description="The port to serve on; 0 picks a free one.")
    data: Path = Field(description="The directory that holds everything the node keeps.")
    token_file: Path | None = Field(default=None, description="The tokens' hashes; by default tokens.json below data.")
    omega: str = Field(default="", description="OMEGA's URL, for a Mainframe.")
    license_file: Path | None = Field(default=None, description="The file with the Mainframe's licence key.")
    ca_file: Path | None = Field(default=None, description="The CA that signed OMEGA's certificate, if private.")
    tls_cert: Path | None = Field(default=None, description="This node's certificate chain (PEM).")
    tls_key: Path | None = Field(default=None, description="Its key (PEM).")
    insecure_http: bool = Field(default=False, description="Send the licence to OMEGA over plain HTTP off loopback.")
    trust_root: Path | None = Field(
        default=None, description="The root.json that says who approves: a Mainframe's root, and OMEGA's first."
    )
    fleet_dsn_file: Path | None = Field(
        default=None,
        description="A file with the URL of the database for OMEGA's fleet; by default fleet.db below data.",
    )
    minimum_release_seq: int = Field(default=0, ge=0, description="The lowest release that a Mainframe may install.")
    channel: str = Field(default="stable", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="A Mainframe's channel.")
    unsigned_releases: bool = Field(default=False, description="Do without signatures: trust whoever OMEGA's node is.")
    poll_interval: float = Field(
        default=15, gt=0, le=_DAY, description="Seconds between a Mainframe's questions to OMEGA."
    )
    watch_seconds: float = Field(
        default=300,
        ge=0,
        le=_DAY,
        description="Seconds for which a Mainframe takes a switch back whose program ends or is not healthy.",
    )
    install: Literal["automatic", "ask"] = Field(
        default="automatic", description="ask: a Mainframe installs nothing before somebody says so on its machine."
    )
    hold_days: float = Field(
        default=0, ge=0, le=3650, description="Days for which a Mainframe holds back what OMEGA offers."
    )
    urgent: Literal["wait", "override"] = Field(
        default="wait",
        description="override: what the approvers let be urgent waits for none of the Mainframe's own rules.",
    )
    import_days: float = Field(
        default=0,
        ge=0,
        le=365,
        description="Days for which a file carried by hand may be on its way, beyond the day that OMEGA signs for.",
    )
    windows: list[str] = Field(
        default=[],
        max_length=50,
        description="When a Mainframe may switch, each as RECURRENCE DURATION ZONE.",
    )
    max_download_rate: int = Field(
        default=0,
        ge=0,
        le=1_000_000_000_000,
        description="Bytes a second that a Mainframe pulls at most; 0: as many as there are.",
    )
    keep_releases: int = Field(default=3, ge=2, description="Releases kept unpacked, current and previous included.")
    keep_days: float = Field(
        default=14, ge=0, le=36_500, description="Days for which a pushed bundle is kept, used or not."
    )
    windows_names: bool = Field(
        default=True, description="Refuse releases with names that Windows cannot hold, or that differ only in case."
    )
    app: AppConfig = AppConfig()
    slots: SlotsConfig = SlotsConfig()
    database: DatabaseConfig = DatabaseConfig()
    objects: ObjectsConfig = ObjectsConfig()
    _file: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("'tls_cert' and 'tls_key' go together; set both or neither")
        if self.role is Role.MAINFRAME and not (self.omega and self.license_file):
            raise ValueError("a mainframe needs 'omega' (the URL to ask) and 'license_file' (its licence)")
        if 0 < self.max_download_rate < LOWEST_RATE:
            raise ValueError(f"max_download_rate: {LOWEST_RATE} bytes a second is the least, or 0 for no limit")
        for text in self.windows:
            try:
                Window.parse(text)
            except UsageError as error:
                raise ValueError(f"windows: {error}".rstrip(".")) from None
        self._check_slots()
        if self.objects.model_fields_set and self.role is not Role.OMEGA:
            raise ValueError("[objects] is for OMEGA alone, which has Mainframes; leave it out here")
        if not self.name:
            self.name = str(self.role)
        return self

    def _check_slots(self) -> None:
        if not self.slots.ports:
            return
        if not self.app.supervises:
            raise ValueError("[slots] needs a program that the node runs: set app.command or app.release_command")
        if self.app.port not in (0, *self.slots.ports):
            raise ValueError("with [slots], app.port is one of slots.ports, or left out")
        if self.app.url and "{port}" not in self.app.url:
            raise ValueError("with [slots], app.url needs {port}, since each slot is asked at its own")
        if self.port in self.slots.ports:
            raise ValueError(f"slots.ports: {self.port} is the node's own port")

    @property
    def file(self) -> Path | None:
        """The file of these settings, where there is one."""
        return self._file

    @property
    def tokens_path(self) -> Path:
        """Where the tokens' hashes are."""
        return self.token_file or self.data / "tokens.json"

    @property
    def app_data(self) -> Path:
        """The program's own data directory."""
        return self.data / "app-data"

    @classmethod
    def load(cls, file: Path | None = None, **flags: Any) -> NodeConfig:
        """Load the settings from `flags` (None: not given), the environment and `file`.

        Raises:
            UsageError: a line for each setting that is wrong, naming it and where it came from.
        """
        content = _read_toml(file) if file else {}

        class Loaded(cls):  # type: ignore[misc, valid-type]
            @classmethod
            def settings_customise_sources(
                cls,
                settings_cls: type[BaseSettings],
                init_settings: PydanticBaseSettingsSource,
                **_: PydanticBaseSettingsSource,
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                file_settings = InitSettingsSource(settings_cls, init_kwargs=content)
                return init_settings, _Environment(settings_cls), file_settings

        given = {key: value for key, value in flags.items() if value is not None}
        try:
            loaded: NodeConfig = Loaded(**given)
        except ValidationError as error:
            raise UsageError("\n".join(_lines(error, file, content, given))) from None
        loaded.data = loaded.data.expanduser().absolute()
        loaded._file = file.absolute() if file else None
        return loaded


class _Environment(EnvSettingsSource):
    """`ASHAT_NODE_*`; what is no JSON where a table is wanted goes on as text, so that `load` says where it is."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Read JSON, or a command line."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            if get_origin(field.annotation) is not list:
                return value
            variable = next(name for name, text in self.env_vars.items() if text == value)
            return split_words(variable.upper(), value)


def split_words(name: str, text: str) -> list[str]:
    """Split a command line as a shell would; `name` is what gave it, for the message.

    Raises:
        UsageError: its words cannot be told apart.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{name}: {text!r} is not a command line: {error}.") from None


def read_secret(path: Path, setting: str) -> str:
    """Read the first line of a secret file, stripped.

    Raises:
        UsageError: it cannot be read, is empty, or its group or others may read it.
    """
    try:
        mode = path.stat().st_mode
        text = read_bounded(path, SECRET_LIMIT).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{setting}: {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"{setting}: others can read {path}; run: chmod 600 {path}")
    if not text:
        raise UsageError(f"{setting}: {path} is empty.")
    return text.splitlines()[0].strip()


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        content = load_toml(read_bounded(file, FILE_LIMIT), limit=FILE_LIMIT)
    except OSError as error:
        raise UsageError(f"The settings in {file} cannot be read: {error.strerror}.") from None
    except DocumentError as error:
        raise UsageError(f"{file} is not TOML: {error}.") from None
    base = file.absolute().parent
    for name, keys in {"": _PATHS, "database": ("dsn_file",), "app": ("ca_file",), "slots": ("snippet",)}.items():
        table: Any = content.get(name) if name else content
        for key in keys if isinstance(table, dict) else ():
            if isinstance(table.get(key), str) and table[key]:
                table[key] = str(base / Path(table[key]).expanduser())
    return content


def _lines(error: ValidationError, file: Path | None, content: dict[str, Any], flags: dict[str, Any]) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        location = tuple(str(part) for part in problem["loc"])
        where = _origin(location, file, content, flags)
        name = ".".join(location)
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: there is no setting {name!r}{_suggestion(location)}")
        elif problem["type"] == "missing":
            lines.append(f"The setting {name!r} is missing: give --{name.replace('_', '-')} or put it in the file.")
        else:
            text = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {name + ': ' if name else ''}{text[:1].lower()}{text[1:]}.")
    return lines


def _origin(location: tuple[str, ...], file: Path | None, content: dict[str, Any], flags: dict[str, Any]) -> str:
    if flag := _flag(location, flags):
        return flag
    names = [PREFIX + "__".join(location[:depth]).upper() for depth in range(len(location), 0, -1)]
    for name in names:
        if name in {key.upper() for key in os.environ}:
            return name
    if file and (not location or location[0] in content):
        return str(file)
    return "The settings"


def _flag(location: tuple[str, ...], flags: dict[str, Any]) -> str:
    """The flag that set what is there, "" where none did; one of those of a table where the table itself is wrong."""
    given = flags.get(location[0]) if location else None
    if given is None or (isinstance(given, dict) and location[1:] and location[1] not in given):
        return ""
    names = [location[0]]
    if isinstance(given, dict):
        names.append(location[1] if location[1:] else next(iter(given)))
    return "--" + "-".join(names).replace("_", "-")


def _suggestion(location: tuple[str, ...]) -> str:
    models: dict[str, type[BaseModel]] = {
        "app": AppConfig,
        "slots": SlotsConfig,
        "database": DatabaseConfig,
        "objects": ObjectsConfig,
    }
    model = models.get(location[0], NodeConfig) if len(location) > 1 else NodeConfig
    near = difflib.get_close_matches(location[-1], model.model_fields, n=1)
    return f"; did you mean {near[0]!r}?" if near else "."
