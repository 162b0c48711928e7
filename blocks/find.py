"""Find a block of ours in Prefect by its name, or delete it."""

from __future__ import annotations

from typing import TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from ashat.common.text import first_misfit
from ashat.errors import NotConfiguredError

_Kind = TypeVar("_Kind", bound=Block)


def find_block(kind: type[_Kind], name: str) -> _Kind | None:
    """Load the block of that kind and name; None if there is none.

    Raises:
        NotConfiguredError: a block of that name is of another kind, or holds a value that does not fit.
    """
    try:
        block = kind.load(name)
    except ValueError:
        return None
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        raise NotConfiguredError(
            f"The block '{name}' ({kind.get_block_type_name()}) does not fit: {first_misfit(error.__cause__)}. "
            "Change it in Prefect's UI, or configure it anew."
        ) from None
    if not isinstance(block, kind):
        raise NotConfiguredError(f"The block '{name}' is a {type(block).__name__}, not a {kind.get_block_type_name()}.")
    return block


def delete_block(block: str) -> None:
    """Delete the block that is named as kind/name; nothing where somebody did so in the UI."""
    slug, _, name = block.partition("/")
    with get_client(sync_client=True) as client:
        try:
            client.delete_block_document(client.read_block_document_by_name(name, slug).id)
        except ObjectNotFound:
            return
