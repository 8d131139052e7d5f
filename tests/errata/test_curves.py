"""The kept runs: the script writes them, and what is kept reaches what is promised."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from danlu.scratch.digits import Examples
from docs import curves
from docs.curves import DOCS, MARKER, WORDS, trained

PROMISED = {"bundled": (0.96, 60), "mnist": (0.975, 300)}  # accuracy, seconds


def examples(count: int) -> Examples:
    """Ten noisy patterns: easy to tell apart."""
    rng = np.random.default_rng(count)
    y = np.arange(count) % 10
    return (np.eye(10)[y] + rng.normal(0, 0.1, (count, 10))).astype(np.float32), y


def test_a_run_is_drawn_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "DOCS", tmp_path)
    for language in WORDS:
        page = tmp_path / language / "explanation" / "digits.md"
        page.parent.mkdir(parents=True)
        page.write_text(f"before\n\n{MARKER.format('easy')}\n| old |\n\n## after\n", "utf-8")
    run = trained(examples(640), examples(100), epochs=3)
    assert len(run.train) == 15 and run.epochs[-1][3] > 0.9
    curves.keep("easy", run)
    for language, words in WORDS.items():
        text = (tmp_path / language / "explanation" / "digits.md").read_text("utf-8")
        assert text.startswith("before") and text.endswith("\n\n## after\n") and "old" not in text
        assert text.count(f"{run.epochs[-1][3]:.2%}") and words["head"] in text
        drawn = ElementTree.parse(tmp_path / language / "explanation" / "digits-easy.svg").getroot()
        assert len(drawn.findall("{*}circle")) == 3


@pytest.mark.parametrize("language", WORDS)
@pytest.mark.parametrize("name", PROMISED)
def test_what_is_kept_reaches_what_is_promised(name: str, language: str) -> None:
    folder = DOCS / language / "explanation"
    after = (folder / "digits.md").read_text("utf-8").partition(MARKER.format(name))[2]
    last = after.lstrip("\n").partition("\n\n")[0].splitlines()[-1]
    right, seconds = re.findall(r"([\d.]+)% \| (\d+)", last)[0]
    assert float(right) / 100 >= PROMISED[name][0] and float(seconds) < PROMISED[name][1]
    drawn = ElementTree.parse(folder / f"digits-{name}.svg").getroot()
    assert len(drawn.findall("{*}circle")) == int(last.split("|")[1])
