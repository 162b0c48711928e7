"""Find a block of ours in Prefect by its name."""

from __future__ import annotations

from typing import TypeVar

from prefect.blocks.core import Block

from ashat.errors import NotConfiguredError

_Kind = TypeVar("_Kind", bound=Block)


def find_block(kind: type[_Kind], name: str) -> _Kind | None:
    """Load the block of that kind and name; None if there is none.

    Raises:
        NotConfiguredError: a block of that name is of another kind.
    """
    try:
        block = kind.load(name)
    except ValueError:
        return None
    if not isinstance(block, kind):
        raise NotConfiguredError(f"The block '{name}' is a {type(block).__name__}, not a {kind.get_block_type_name()}.")
    return block
