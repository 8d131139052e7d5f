"""A whole life that takes a second or two: some hundred sentences, one layer, a few steps."""

from pathlib import Path

import numpy as np
import pytest

from danlu.graph import Life
from danlu.recipe import load_recipe
from danlu.train import cost, pace

WORDS = {
    "how": ["old", "young", "small", "tall", "quiet", "brave", "tired", "hidden", "distant", "silver"],
    "who": ["king", "queen", "fool", "ghost", "river", "mountain", "lantern", "garden", "sailor", "book", "window"],
    "does": ["sees", "finds", "keeps", "loses", "paints", "follows", "carries", "hears", "opens", "hides"],
}
RECIPE = """
task = "language_modeling"
seed = 7

[data]
path = "texts"

[tokenizer]
vocab_size = 300

[model]
depth = 1
width = 64
context = 32

[train]
steps = 6
lr = 0.02
batch_tokens = 128
precision = "fp32"
evaluate_every = 2
save_every = 2

[evaluate]
ngram = 2
samples = 1

[system]
threads = 1
"""


PLAIN = RECIPE.replace("\n[evaluate]\nngram = 2\nsamples = 1\n", "")  # for tasks beside which no n-grams stand


def sentences(count: int = 300) -> list[str]:
    """Distinct sentences, the same on every machine."""
    random = np.random.Generator(np.random.PCG64(1))
    parts = [[str(random.choice(WORDS[kind])) for kind in ("how", "who", "does", "how", "who")] for _ in range(count)]
    return [f"The {a} {b} {c} a {d} {e}, {number}." for number, (a, b, c, d, e) in enumerate(parts)]


def project(folder: Path, recipe: str = RECIPE, count: int = 300) -> Path:
    """A folder with texts and a recipe; returns the recipe's path."""
    (folder / "texts").mkdir(parents=True)
    rows = "".join('{"text": "' + sentence + '"}\n' for sentence in sentences(count))
    (folder / "texts" / "rows.jsonl").write_text(rows, encoding="utf-8")
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    return folder / "recipe.toml"


def life(recipe: Path, *overrides: str) -> Life:
    return Life(load_recipe(recipe, overrides))


def no_clock(patch: pytest.MonkeyPatch) -> None:
    """Let nothing be measured, so that two trainings of one recipe have one plan."""
    patch.setattr(cost, "peak", lambda precision, where="cpu": 1e11)
    patch.setattr(pace, "step_seconds", lambda *_, **__: 0.01)
    patch.setattr(cost, "_known", dict)
    patch.setattr(cost, "_keep", lambda known: None)
