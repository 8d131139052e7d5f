"""A training that goes on with something else than it was begun with: said, and refused or begun anew; never silent."""

from pathlib import Path

import pytest
import torch

from danlu import files
from danlu.artifact import LINEAGE
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from danlu.train.plan import Plan
from tests.tiny_life import RECIPE, life, project

pytestmark = pytest.mark.usefixtures("steady")


class View(Silent):
    """Keeps what is said, and stops the training at a step."""

    def __init__(self, stop: int = 10**9):
        self.stop, self.node, self.lines = stop, "", list[str]()

    def stage(self, node: str, note: str) -> None:
        self.node = node
        self.lines.append(note)

    def line(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, done: float, total: float, note: str) -> None:
        if self.node == "pretrain" and done >= self.stop:
            raise KeyboardInterrupt


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A training that was stopped at its fourth step."""
    made = project(tmp_path / "tiny", RECIPE.replace("[train]", "[train]\ndropout = 0.1"))
    with pytest.raises(KeyboardInterrupt):
        life(made).run(View(stop=4), "pretrain")
    return made


def partial(recipe: Path) -> Path:
    return next(recipe.parent.glob("runs/store/pretrain-*.partial"))


def begun_with(recipe: Path, **other: str) -> None:
    path = partial(recipe) / LINEAGE
    table = files.read_json(path)
    files.write_json(path, table | {"made": table["made"] | other})


def weights(recipe: Path, *overrides: str) -> str:
    folder = life(recipe, *overrides).run(Silent(), "pretrain").folders["pretrain"]
    return files.sha256(folder / "model.safetensors")


@pytest.mark.parametrize("what", ["torch", "numpy", "danlu", "machine"])
def test_another_library_or_machine_is_refused_with_the_list(what: str, recipe: Path) -> None:
    begun_with(recipe, **{what: "0.0.1"})
    with pytest.raises(UserError) as problem:
        life(recipe).run(Silent(), "pretrain")
    assert (problem.value.code, problem.value.exit) == ("E312", 4)
    assert f"{what} 0.0.1 → " in problem.value.render() and "--allow-change" in problem.value.render()
    assert partial(recipe).exists(), "nothing is lost"


def test_where_it_is_allowed_it_goes_on_and_says_so(recipe: Path) -> None:
    begun_with(recipe, torch="0.0.1", machine="abacus")
    view = View()
    Life(load_recipe(recipe), allow_change=True).run(view, "pretrain")
    assert [line for line in view.lines if "torch 0.0.1 → " in line and "machine abacus → " in line]
    assert [line for line in view.lines if "goes on from step 3" in line]


def test_the_same_machine_goes_on_without_a_word(recipe: Path, tmp_path: Path) -> None:
    view = View()
    life(recipe).run(view, "pretrain")
    assert not [line for line in view.lines if "→" in line]
    straight = project(tmp_path / "straight" / "tiny", (recipe).read_text())
    assert weights(recipe) == weights(straight)


def test_other_threads_do_not_change_what_was_begun(recipe: Path, tmp_path: Path) -> None:
    view = View()
    folder = life(recipe, "system.threads=2").run(view, "pretrain").folders["pretrain"]
    assert [line for line in view.lines if "the 1 threads it was begun with, not 2" in line]
    plan = Plan.read(folder)
    assert plan is not None and plan.threads == 1 == torch.get_num_threads()
    straight = project(tmp_path / "straight" / "tiny", recipe.read_text())
    assert files.sha256(folder / "model.safetensors") == weights(straight)


@pytest.mark.parametrize(
    ("change", "said"),
    [("train.lr=0.01", "train.lr 0.02 → 0.01"), ("tokenizer.vocab_size=320", "its input columns changed"),
     ("data.split.valid=0.2", "its input columns changed")],
)  # fmt: skip
def test_another_recipe_or_tokenizer_begins_anew(change: str, said: str, recipe: Path) -> None:
    """The list of differences is said, and where the begun training lies; that one can still go on."""
    view, left = View(), partial(recipe)
    before = files.read_json(left / LINEAGE)
    folder = life(recipe, change).run(view, "pretrain").folders["pretrain"]
    (why,) = (line for line in view.lines if said in line and left.name in line)
    assert why and folder.name != left.name.removesuffix(".partial")
    assert files.read_json(left / LINEAGE) == before
    again = View()
    life(recipe).run(again, "pretrain")
    assert [line for line in again.lines if "goes on from step 3" in line]


def test_other_data_begin_anew(recipe: Path) -> None:
    left = partial(recipe)
    with open(recipe.parent / "texts" / "rows.jsonl", "a", encoding="utf-8") as rows:
        rows.write('{"text": "A row that was not there before."}\n')
    view = View()
    life(recipe).run(view, "pretrain")
    assert [line for line in view.lines if "its input columns changed" in line and left.name in line]
    assert not [line for line in view.lines if "goes on from" in line]
