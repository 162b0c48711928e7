"""YAML and XML of strangers, read within bounds of depth and of nodes, without aliases, entities or types.

YAML's scalars stay texts, because a version such as 1.10 is no number. An alias could stand for a document that
doubles at each level, and an XML document type for entities that do: both are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import yaml  # type: ignore[import-untyped]

from ashat.common.documents import DEPTH

NODES_LIMIT = 1_000_000
ELEMENTS_LIMIT = 300_000
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def load_yaml(content: bytes, *, nodes: int = NODES_LIMIT) -> object:
    """Parse the first document of a YAML text into mappings, lists and texts.

    Raises:
        ValueError: it is none, has an alias, more than `nodes` nodes, or more than `DEPTH` levels.
    """
    try:
        return _composed(yaml.parse(content.decode("utf-8-sig"), Loader=_LOADER), nodes)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {getattr(error, 'problem', None) or 'it cannot be read'}") from None


def _composed(events: Iterator[yaml.Event], limit: int) -> object:
    stack: list[tuple[object, list[object]]] = [(None, [])]
    for count, event in enumerate(events, 1):
        if count > limit or len(stack) > DEPTH:
            raise ValueError(f"more than {limit} nodes, or {DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            stack[-1][1].append(event.value)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            stack.append((event, []))
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            began, values = stack.pop()
            stack[-1][1].append(_mapping(values) if isinstance(began, yaml.MappingStartEvent) else values)
        elif isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias (*), which is not followed")
        elif isinstance(event, yaml.DocumentEndEvent):
            break
    return stack[0][1][0] if stack[0][1] else None


def _mapping(values: list[object]) -> dict[str, object]:
    return {str(key): value for key, value in zip(values[::2], values[1::2], strict=True) if isinstance(key, str)}


def load_xml(content: bytes, *, elements: int = ELEMENTS_LIMIT) -> Element:
    """Parse an XML text, without its namespaces.

    Raises:
        ValueError: it is none, has a document type, more than `elements` elements, or more than `DEPTH` levels.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = count = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > DEPTH or count > elements or len(attributes) > DEPTH:
            raise ValueError(f"more than {elements} elements, or {DEPTH} levels or attributes")
        builder.start(name.rpartition(":")[2], attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name.rpartition(":")[2])

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type, which is not read")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    parser.buffer_text = True
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"no XML: {error}") from None
    return builder.close()


def text_of(element: Element, name: str) -> str:
    """Return the text of the first child of that name, without spaces around it; "" where there is none."""
    child = element.find(name)
    return ((child.text if child is not None else None) or "").strip()
