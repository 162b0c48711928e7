"""Write pages that stand by themselves: no script, nothing fetched, every text escaped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ashat.cli.commands.stats_words import UNKNOWN, duration, percent
from ashat.common.text import printable
from ashat.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import Environment

WIDTH: Final = 720


def render(template: str, **shown: Any) -> str:
    """Fill in a template of `ashat/cli/templates`; what is shown is escaped, and its control characters are seen.

    Raises:
        UsageError: the extra that pages need is not installed.
    """
    return _environment().get_template(template).render(width=WIDTH, **shown)


def write_page(file: Path, make: Callable[[], str]) -> None:
    """Write the page that `make` makes to a file.

    Raises:
        UsageError: it cannot be written, or the extra that pages need is not installed.
    """
    try:
        file.write_text(make(), "utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from None


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise UsageError("The page needs the extra 'operator': pip install 'ashat-deploy[operator]'.") from None
    made = Environment(
        loader=PackageLoader("ashat.cli", "templates"), autoescape=True, undefined=StrictUndefined, finalize=_plain
    )
    made.globals |= {"duration": duration, "percent": percent, "UNKNOWN": UNKNOWN}
    return made


def _plain(value: object) -> object:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
