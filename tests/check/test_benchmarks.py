"""The figures in the READMEs are those of benchmarks/results."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.check.tree import ROOT

SIDE = {"milliseconds": 1234.4, "share_of_bf16_peak": 0.42, "peak_mb": 999, "weights": 13_900_000}
MEASURED = {
    "training_step": {
        "machine": {"processor": "An abacus", "threads": 2, "torch": "2"},
        "gpt2, default": {
            "rows": 16,
            "sides": {
                "danlu": SIDE | {"milliseconds": 411.4, "danlu_is_faster_by": 1.0},
                "slow": SIDE | {"danlu_is_faster_by": 3.004},
            },
        },
    },
    "forecast": {
        "novels": {"total": {"seconds_forecast": 50.4, "seconds": 48.0, "mb_forecast": 1234, "mb": 1200}},
        "commit": "0",
    },
    "time_to_quality": {
        "nanoGPT": {"wall_seconds": 90.0, "worst_loss": 1.88, "runs": [{}]},
        "1.88": {"wall_seconds": 18.0, "worst_loss": 1.875, "runs": [{"wall_seconds": 17.0}, {"wall_seconds": 18.4}]},
    },
}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that writes the tables; its folder is no package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tables  # type: ignore[import-not-found]

    return tables  # type: ignore[no-any-return]


def test_the_readmes_show_the_newest_results(tables: ModuleType) -> None:
    stale = [path.name for path in tables.stale()]
    assert not stale, f"python benchmarks/tables.py writes them again: {stale}"


def test_tables_show_what_was_measured(tables: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "2030-01-01-abacus.json").write_text(json.dumps(MEASURED), "utf-8")
    monkeypatch.setattr(sys.modules["results"], "FOLDER", tmp_path)
    lines = tables.page("en").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert ["danlu", "411", "", "42%", "999"] in rows
    assert ["slow", "1,234", "3.00×", "42%", "999"] in rows
    assert ["danlu to 1.88, worst of 2 seeds", "18", "1.875", "1/4.9"] in rows
    assert ["novels", "50", "48", "1,234", "1,200"] in rows
    assert "An abacus, 2 threads" in lines[-1]
    assert len(tables.stale()) == 2, "both READMEs would change"


def test_a_readme_without_marks_is_refused(tables: ModuleType) -> None:
    with pytest.raises(ValueError):
        tables.injected("no marks here", "a table")
