"""The source tree as the checks see it: files, syntax trees, and who imports whom."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "danlu"


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name below danlu ("train.loop"; a package is its own name, danlu itself is "")."""

    path: Path
    name: str
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@cache
def modules() -> tuple[Module, ...]:
    paths = sorted(SOURCE.rglob("*.py"))
    assert len(paths) > 50, "the source is not where the checks look for it"
    return tuple(Module(path, _name(path), ast.parse(path.read_text("utf-8"))) for path in paths)


def _name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True)
class Import:
    """`target` (dotted, below danlu) is imported; `lazy` inside a function, `typing` only for annotations."""

    target: str
    node: ast.AST
    lazy: bool
    typing: bool


def imports(module: Module) -> Iterator[Import]:
    """What a module imports from danlu, wherever the import stands."""
    known = {each.name for each in modules()}
    yield from _imports(module.tree, known, lazy=False, typing=False)


def _imports(node: ast.AST, known: set[str], *, lazy: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for target in _targets(child, known):
            yield Import(target, child, lazy, typing)
        inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        only = typing or (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"))
        yield from _imports(child, known, lazy=inside, typing=only)


def _targets(node: ast.AST, known: set[str]) -> Iterator[str]:
    """`from danlu import files` names files; `from danlu.files import sha256` names files too."""
    if isinstance(node, ast.Import):
        yield from (_below(alias.name) for alias in node.names if alias.name.split(".")[0] == "danlu")
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "danlu":
        for alias in node.names:
            inner = _below(f"{node.module}.{alias.name}")
            yield inner if inner in known else _below(node.module or "")


def _below(name: str) -> str:
    return name.removeprefix("danlu").lstrip(".")


def calls(*names: str) -> Iterator[tuple[Module, ast.Call]]:
    """Every call in the source of something with one of these dotted names."""
    return ((module, call) for module in modules() for call in calls_in(module.tree) if dotted(call.func) in names)


def calls_in(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def dotted(node: ast.AST) -> str:
    """ "np.random.rand" of the expression that a call calls; "" where it is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""
