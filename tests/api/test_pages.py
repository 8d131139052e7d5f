"""The example and the pages about Python run as they stand."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from danlu import AutoModel
from tests.api import bert
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("steady")
PAGES = [ROOT / "docs" / language / "how-to" / "python.md" for language in ("en", "zh")]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages name: bert/, train.csv and test.csv."""
    bert.folder(tmp_path / "bert")
    for name, start in (("train", 0), ("test", 90)):
        lines = [f'"{row["text"]}",{row["label"]}' for row in bert.rows(90 if name == "train" else 30, start)]
        (tmp_path / f"{name}.csv").write_text("review,stars\n" + "\n".join(lines), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_hold_the_same_programs() -> None:
    english, chinese = (BLOCK.findall(page.read_text("utf-8")) for page in PAGES)
    assert english == chinese
    assert len(english) > 8


def test_the_programs_of_the_page_run(place: Path, capsys: Any) -> None:
    program = "\n".join(BLOCK.findall(PAGES[0].read_text("utf-8")))
    exec(compile(program, "python.md", "exec"), {})  # noqa: S102
    assert "torch.Size([1, 2])" in capsys.readouterr().out
    assert (place / "runs" / "lora" / "recipe.toml").exists()
    assert AutoModel.from_pretrained(place / "out").task.labels == ("king", "queen", "ship")


def test_the_page_about_explaining_runs(place: Path, capsys: Any) -> None:
    english, chinese = (BLOCK.findall((page.parent / "explaining.md").read_text("utf-8")) for page in PAGES)
    assert english == chinese
    AutoModel.from_pretrained("bert", task="text_classification", labels=["good", "bad"]).save_pretrained("reviews")
    exec(compile("\n".join(english), "explaining.md", "exec"), {})  # noqa: S102
    assert "'gradients'" in capsys.readouterr().out
    assert (place / "why.html").exists()


def test_the_example_runs(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    path = ROOT / "examples" / "three_lines.py"
    assert len(path.read_text("utf-8").splitlines()) <= 60
    monkeypatch.setattr("sys.argv", [str(path), "bert", "train.csv", "test.csv", "out"])
    runpy.run_path(str(path), run_name="__main__")
    assert "'label'" in capsys.readouterr().out
    assert (place / "out" / "model.safetensors").exists()
