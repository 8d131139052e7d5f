"""How large files and functions are. `python -m tests.check.sizes` prints the table."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from tests.check.tree import ROOT, Module, modules

FILE, FUNCTION, ARGUMENTS, MEDIAN = 400, 80, 8, 10


@dataclass(frozen=True)
class Function:
    where: str
    part: str
    lines: int
    arguments: int


def functions() -> list[Function]:
    return [each for module in modules() for each in _functions(module)]


def _functions(module: Module) -> Iterator[Function]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            where = f"{module.at(node)} {node.name}"
            yield Function(where, _part(str(module.path.relative_to(ROOT))), lines, _arguments(node.args))


def _part(path: str) -> str:
    """ "src/danlu/nn/mlp.py" -> "nn"; a file directly in danlu is its own part."""
    return path.split("/")[2].removesuffix(".py")


def _arguments(given: ast.arguments) -> int:
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return sum(each.arg not in ("self", "cls") for each in named) + bool(given.vararg) + bool(given.kwarg)


def files() -> dict[str, int]:
    """{path: lines} of the source."""
    lines = {module.path: len(module.path.read_text("utf-8").splitlines()) for module in modules()}
    return {str(path.relative_to(ROOT)): count for path, count in lines.items()}


def table() -> str:
    """Per part: files, lines, functions, their median and longest."""
    found, sized = functions(), files()
    rows = [f"{'':14}{'files':>7}{'lines':>7}{'functions':>11}{'median':>8}{'longest':>9}{'arguments':>11}"]
    for part in [*sorted({each.part for each in found}), "all"]:
        mine = [each for each in found if part in (each.part, "all")]
        own = [lines for path, lines in sized.items() if part in ("all", _part(path))]
        lengths = [each.lines for each in mine]
        most = max(each.arguments for each in mine)
        rows.append(f"{part:14}{len(own):7}{sum(own):7,}{len(mine):11}{median(lengths):8.0f}{max(lengths):9}{most:11}")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
