"""Small files, small functions, few arguments, and no drawer for whatever."""

from pathlib import Path
from statistics import median

from tests.check.sizes import ARGUMENTS, FILE, FUNCTION, MEDIAN, files, functions
from tests.check.tree import ROOT

DRAWERS = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "tools", "shared", "base"}


def test_files_are_short() -> None:
    long = {path: lines for path, lines in files().items() if lines > FILE}
    assert not long, f"over {FILE} lines: {long}"


def test_functions_are_short() -> None:
    long = [f"{each.where}: {each.lines}" for each in functions() if each.lines > FUNCTION]
    assert not long, f"over {FUNCTION} lines:\n" + "\n".join(long)
    assert median(each.lines for each in functions()) <= MEDIAN


def test_functions_take_few_arguments() -> None:
    many = [f"{each.where}: {each.arguments}" for each in functions() if each.arguments > ARGUMENTS]
    assert not many, f"over {ARGUMENTS} arguments:\n" + "\n".join(many)


def test_a_file_is_named_after_what_it_holds() -> None:
    found = [path for folder in ("src", "tests", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert not [str(path) for path in found if _words(path) & DRAWERS]


def _words(path: Path) -> set[str]:
    return set(path.stem.split("_")) | {path.parent.name}
