"""Measures the shipped Python: lines, the length of functions, their parameters, and the longest files.

    python scripts/measure.py [--json]

A function's length is all of it, from `def` to its last line, docstring included; `self` and `cls` are not counted as
parameters. The limits are those of tests/repository/test_architecture.py, which measures with this script.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("ashat", "blocks", "tasks", "flows")
FILE_LINES = 600
FUNCTION_LINES = 50
PARAMETERS = 7


@dataclass
class Measures:
    """What was measured; `long_files`, `long_functions` and `many_parameters` name what is over its limit."""

    files: int = 0
    lines: int = 0
    functions: int = 0
    median: float = 0.0
    p90: float = 0.0
    longest_file: int = 0
    longest_function: int = 0
    long_files: list[str] = field(default_factory=list)
    long_functions: list[str] = field(default_factory=list)
    many_parameters: list[str] = field(default_factory=list)


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method below `tree`, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the function's lines, from `def` to its end."""
    return (function.end_lineno or 0) - function.lineno + 1


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the parameters that a caller can give, `*args` and `**kwargs` as one each."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    given = [argument for argument in named if argument.arg not in ("self", "cls")]
    return len(given) + (arguments.vararg is not None) + (arguments.kwarg is not None)


def measure(*places: str) -> Measures:
    """Measure every Python file below `places`, which are directories of the repository."""
    found, lengths = Measures(), []
    for path in sorted(path for place in places for path in (ROOT / place).rglob("*.py")):
        text, where = path.read_text("utf-8"), path.relative_to(ROOT)
        lines = text.count("\n")
        found.files += 1
        found.lines += lines
        found.longest_file = max(found.longest_file, lines)
        if lines > FILE_LINES:
            found.long_files.append(f"{where}: {lines} lines")
        for function in functions_of(ast.parse(text)):
            length, parameters = length_of(function), parameters_of(function)
            lengths.append(length)
            if length > FUNCTION_LINES:
                found.long_functions.append(f"{where}:{function.lineno}: {function.name} has {length} lines")
            if parameters > PARAMETERS:
                found.many_parameters.append(f"{where}:{function.lineno}: {function.name} has {parameters} parameters")
    found.functions, found.longest_function = len(lengths), max(lengths, default=0)
    if len(lengths) > 1:
        found.median, found.p90 = statistics.median(lengths), statistics.quantiles(lengths, n=10)[8]
    return found


def main() -> None:
    """Print what was measured of the shipped code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    found = measure(*SHIPPED)
    if parser.parse_args().json:
        print(json.dumps(asdict(found), indent=2))
        return
    print(f"{found.lines} lines in {found.files} files, the longest {found.longest_file}")
    print(
        f"{found.functions} functions: median {found.median:g} lines, p90 {found.p90:g}, max {found.longest_function}"
    )
    for title, listed in (
        (f"files over {FILE_LINES} lines", found.long_files),
        (f"functions over {FUNCTION_LINES} lines", found.long_functions),
        (f"functions with more than {PARAMETERS} parameters", found.many_parameters),
    ):
        print(f"{len(listed)} {title}" + "".join(f"\n  {line}" for line in listed))


if __name__ == "__main__":
    main()
