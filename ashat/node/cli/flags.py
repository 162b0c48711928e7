"""The flags of `ashat-node serve`: one for each setting, made from the settings themselves.

A setting of a table has the table's name in front (`--app-port`). A flag that holds several words is split as a shell
would split it; `--app-env NAME=VALUE` may be given several times. The CLI source of pydantic-settings would call the
flag `--app.port`, take JSON for words, offer the secret DSN, and print a page of usage for each mistake.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ashat.errors import UsageError
from ashat.node.core.config import NodeConfig, split_words

Function = TypeVar("Function", bound=Callable[..., Any])


def settings_and_flags() -> Iterator[tuple[tuple[str, ...], FieldInfo, str]]:
    """List each setting: where it is (`("app", "port")`), what it is, and its flag; "" for a secret, which has none.

    What is in the words of a command can be read by everybody on the machine.
    """
    for path, field in _settings(NodeConfig, ()):
        secret = SecretStr in (field.annotation, *get_args(field.annotation))
        yield path, field, "" if secret else "--" + "-".join(path).replace("_", "-")


def with_a_flag_for_each_setting(command: Function) -> Function:
    """Have Typer see a flag for each setting where `command` takes `**flags`."""
    signature = inspect.signature(command, eval_str=True)
    own = [it for it in signature.parameters.values() if it.kind is not inspect.Parameter.VAR_KEYWORD]
    made = [_parameter(path, field, flag) for path, field, flag in settings_and_flags() if flag]
    command.__signature__ = signature.replace(parameters=[*own, *made])  # type: ignore[attr-defined]
    return command


def settings_from(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the flags that were given into settings, those of a table in a dictionary of its own.

    Raises:
        UsageError: the words of one cannot be told apart.
    """
    settings: dict[str, Any] = {}
    for path, field, flag in settings_and_flags():
        value = flags.get("_".join(path))
        if not flag or value is None or value == []:
            continue
        table = settings
        for name in path[:-1]:
            table = table.setdefault(name, {})
        table[path[-1]] = _read(field, flag, value)
    return settings


def settings_table() -> Iterator[str]:
    """Describe each setting as a line of a Markdown table: name, default, what it is."""
    yield "| setting | default | |"
    yield "|---|---|---|"
    for path, field, _ in settings_and_flags():
        yield f"| `{'.'.join(path)}` | {_default(field.default)} | {field.description} |"


def _settings(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation, (*above, name))
        else:
            yield (*above, name), field


def _parameter(path: tuple[str, ...], field: FieldInfo, flag: str) -> inspect.Parameter:
    kind, words, metavar = _plain(field), flag, None
    if kind is bool:
        words = f"{flag}/--no-{flag.removeprefix('--')}"
    elif get_origin(kind) is list:
        kind, metavar = str, "WORDS"
    elif get_origin(kind) is dict:
        kind, metavar = list[str], "NAME=VALUE"
    panel = f"Settings of the table {path[0]}" if path[1:] else "Settings"
    option = typer.Option(words, help=field.description, show_default=False, metavar=metavar, rich_help_panel=panel)
    return inspect.Parameter(
        "_".join(path), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _plain(field: FieldInfo) -> Any:
    """The setting's type, without the None that stands for "not set"."""
    if get_origin(field.annotation) in (Union, types.UnionType):
        return next(kind for kind in get_args(field.annotation) if kind is not type(None))
    return field.annotation


def _read(field: FieldInfo, flag: str, value: Any) -> Any:
    kind = get_origin(_plain(field))
    if kind is list:
        return split_words(flag, value)
    if kind is dict:
        return dict(_pair(flag, word) for word in value)
    return value


def _pair(flag: str, word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals):
        raise UsageError(f"{flag}: give NAME=VALUE, not {word!r}.")
    return name, value


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
