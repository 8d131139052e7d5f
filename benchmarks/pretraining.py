"""Does it help to read first? A small BERT learns hidden words of raw text, then classes; beside it the same model that
did not read.

All ways share one recipe, one vocabulary and one shape: they differ in the steps of reading (1 for the one that does
not), and in whether passages that follow each other are learned beside.
Only rows to train on are read.

    python benchmarks/pretraining.py [--data ../shared/data] [--seeds 3] [reviews titles]
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import results

DATA = Path(__file__).parents[2] / "shared" / "data"
RECIPE = """
seed = SEED
task = "masked_language_modeling"

[data]
path = READ
exclude = ["*.md"]
shape = "text"
split = { valid = 0.02, test = 0.0 }
COLUMNS

[tokenizer]
vocab_size = 8000

[model]
depth = DEPTH
context = CONTEXT

[pretrain]
LENGTH

[options]
share = SHARE
pairs = "PAIRS"

[finetune]
task = "text_classification"
data = TEXTS
HELD_OUT
test = "TEST"
LABELLED
epochs = EPOCHS
"""
SETS: dict[str, dict[str, str]] = {
    "reviews": {
        "READ": '"DATA/chnsenticorp_htl/train.tsv.gz"', "COLUMNS": "", "TOKENS": "20M", "SHARE": "0.4",
        "TEXTS": '"DATA/chnsenticorp_htl/train.tsv.gz"', "HELD_OUT": 'valid = "DATA/chnsenticorp_htl/dev.tsv"',
        "TEST": "DATA/chnsenticorp_htl/test.tsv", "LABELLED": "", "EPOCHS": "4.0", "CONTEXT": "256", "DEPTH": "4",
    },
    "titles": {
        "READ": '"DATA/thucnews_titles/dev.txt"', "TOKENS": "2M", "SHARE": "0.15",
        "TEXTS": '"DATA/thucnews_titles/dev.txt"',
        "COLUMNS": 'format = "tsv"\nheader = false\ncolumns = { text = "1" }',
        "HELD_OUT": "split = { valid = 0.05, test = 0.0 }", "TEST": "DATA/thucnews_titles/test.txt",
        "LABELLED": 'format = "tsv"\nheader = false\ncolumns = { text = "1", label = "2" }',
        "EPOCHS": "4.0", "CONTEXT": "64", "DEPTH": "4",
    },
}  # fmt: skip
WAYS = {"nothing read": ("none", False), "hidden words": ("none", True), "hidden words, pairs": ("next", True)}


def recipe(name: str, way: str, seed: int, options: argparse.Namespace) -> str:
    """The recipe of a set and a way to begin."""
    pairs, reads = WAYS[way]
    length = 'tokens = "TOKENS"' if reads else "steps = 1\nlr = 1e-9"
    written = RECIPE.replace("SEED", str(seed)).replace("LENGTH", length).replace("PAIRS", pairs)
    for key, value in SETS[name].items():
        written = written.replace(key, value)
    return written.replace("DATA", options.data.resolve().as_posix())


def accuracy(name: str, way: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Of the tuned model on the test rows, and what it read."""
    with tempfile.TemporaryDirectory() as room:
        (Path(room) / "recipe.toml").write_text(recipe(name, way, seed, options), "utf-8")
        subprocess.run([sys.executable, "-m", "danlu", "run", "recipe.toml", "-q"], cwd=room, check=True)
        store = Path(room) / "runs" / "store"
        figures, read = (json.loads(next(store.glob(f"{stage}-*/metrics.json")).read_text("utf-8"))
                         for stage in ("evaluate", "pretrain"))  # fmt: skip
    found = {role: each["accuracy"] for role, each in (figures["models"] | figures["answers"]).items()
             if "accuracy" in each}  # fmt: skip
    return {"accuracy": found["tuned"], "bag": found["bag"], "read_tokens": read["tokens"]}


def summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Mean, deviation, and half of the 95 % interval of the mean over seeds (Student's t)."""
    found = [run["accuracy"] for run in runs]
    spread = statistics.stdev(found) if len(found) > 1 else math.nan
    half = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}.get(len(found), 2.0) * spread / math.sqrt(len(found))
    return {"accuracy": round(statistics.mean(found), 4), "half_interval": round(half, 4), "runs": runs}


def compared(
    name: str, ways: Iterable[str], seeds: int, reached: Callable[[str, int], dict[str, float]]
) -> dict[str, dict[str, Any]]:
    """{name: what each way reached}, seed by seed."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for seed in range(1, seeds + 1):
        for way, before in runs.items():
            before.append(reached(way, seed))
            print(name, way, before[-1], flush=True)
    return {name: {way: summary(each) for way, each in runs.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for name in options.sets:
        reached = partial(lambda name, way, seed: accuracy(name, way, seed, options), name)
        print(results.keep("pretraining", compared(name, WAYS, options.seeds, reached)))


if __name__ == "__main__":
    main()
