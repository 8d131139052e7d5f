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
    "ranks": {
        "machine": {"processor": "An abacus", "threads": 2, "torch": "2"},
        "rows": [
            {"ranks": 1, "parallel": "ddp", "seconds": 2.0, "seconds_forecast": 2.0, "bytes": 2e9,
             "bytes_forecast": 1.9e9, "parts_forecast": {"computing": 1.9, "moving": 0.1, "passing": 0.0}},
            {"ranks": 4, "parallel": "tensor", "seconds": 1.5, "seconds_forecast": 1.2, "bytes": 1e9,
             "bytes_forecast": 1.1e9, "parts_forecast": {"computing": 0.5, "moving": 0.1, "passing": 0.6}},
        ],
    },
    "saving": {
        "ranks": 2, "steps": 24, "seconds": {"none": 40.0, "beside": 42.0, "waited for": 48.0},
        "of_one": {"beside": 0.5, "waited for": 2.0}, "share_of_a_minute": {"beside": 0.0083, "waited for": 0.0333},
    },
    "time_to_quality": {
        "nanoGPT": {"wall_seconds": 90.0, "worst_loss": 1.88, "runs": [{}]},
        "1.88": {"wall_seconds": 18.0, "worst_loss": 1.875, "runs": [{"wall_seconds": 17.0}, {"wall_seconds": 18.4}]},
    },
}  # fmt: skip


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
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables.scale("en").splitlines()]
    assert ["1", "2.00 s", "2.00 (+0%) = 1.90 + 0.10 + 0.00", "2,000 MB", "1,900 (-5%)"] in rows
    assert ["4 by heads", "1.50 s", "1.20 (-20%) = 0.50 + 0.10 + 0.60", "1,000 MB", "1,100 (+10%)"] in rows
    assert ["written beside the steps", "42.0", "0.50", "0.8%"] in rows
    assert len(tables.stale()) == 4, "both READMEs and both pages on scale would change"


def test_a_readme_without_marks_is_refused(tables: ModuleType) -> None:
    with pytest.raises(ValueError):
        tables.injected("no marks here", "a table")
