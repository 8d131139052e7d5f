"""The figures in the READMEs are those of benchmarks/results."""

import json
import sys
from types import ModuleType

import pytest

from tests.check.tree import ROOT


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that writes the tables; its folder is no package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tables  # type: ignore[import-not-found]

    return tables  # type: ignore[no-any-return]


def test_the_readmes_show_the_newest_results(tables: ModuleType) -> None:
    stale = [path.name for path in tables.stale()]
    assert not stale, f"python benchmarks/tables.py writes them again: {stale}"


def test_another_result_makes_them_stale(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = sys.modules["results"].newest

    def slower(name: str) -> dict:
        found = json.loads(json.dumps(newest(name)))
        for block in (value for key, value in found.items() if key.startswith("gpt2")):
            block["sides"]["danlu"]["milliseconds"] += 1000
        return found

    monkeypatch.setattr(sys.modules["results"], "newest", slower)
    assert len(tables.stale()) == 2


def test_a_readme_without_marks_is_refused(tables: ModuleType) -> None:
    with pytest.raises(ValueError):
        tables.injected("no marks here", "a table")
