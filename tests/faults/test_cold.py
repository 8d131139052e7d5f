"""The real command, killed cold and run again, ends as if nobody had killed it."""

import os
from pathlib import Path

import pytest

from tests.faults import cold

KILLS = int(os.environ.get("PROVE_KILLS", 4))  # make prove-long: 50


@pytest.mark.slow
def test_the_command_killed_cold(tmp_path: Path) -> None:
    report = cold.prove(tmp_path, KILLS, seed=1)
    print(report)
    assert report.failures == []
    assert report.kills == KILLS
    assert report.again >= KILLS // 4
    assert len(report.moments) >= min(KILLS, 6) / 2, report.moments


@pytest.mark.long
def test_a_life_of_other_weights_is_told_apart(tmp_path: Path) -> None:
    """The comparison sees one step more."""
    recipes = [cold.project(tmp_path / name / "tiny", cold.LIFE) for name in ("one", "other")]
    for recipe, steps in zip(recipes, (6, 7), strict=True):
        cold.finish(recipe, f"pretrain.steps={steps}", "finetune.steps=2")
    one, other = map(cold.outcome, recipes)
    assert [name for name in one if one[name] != other[name]] == ["folders", "weights", "log", "figures"]
