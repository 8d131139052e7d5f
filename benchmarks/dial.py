"""The sweep behind the rules of `depth`: where the best learning rate and the best batch lie, at fixed tokens.

Each depth is trained on the same tokens with one setting changed at a time; the figure is the loss on held-out rows.
The text is this Python's own source, which every machine has. What was found stands in docs/decisions.

    python benchmarks/dial.py --depths 2,4,6 --tokens 500000 --lr 0.01,0.03,0.06 --batch 1024,2048,4096
"""

import argparse
import json
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import results
import torch

CONTEXT = 256


@dataclass(frozen=True)
class Setting:
    """One training."""

    depth: int
    lr: float
    batch: int  # tokens of a step
    tokens: int
    optimizer: str = "muon"
    seed: int = 1


def settings(options: argparse.Namespace) -> Iterator[Setting]:
    """The rates at the middle batch, then the batches at the middle rate, for each depth."""
    rates, batches = _numbers(options.lr, float), _numbers(options.batch, int)
    lr, batch = rates[len(rates) // 2], batches[len(batches) // 2]
    for depth in _numbers(options.depths, int):
        pairs = dict.fromkeys([(each, batch) for each in rates] + [(lr, each) for each in batches])
        for one_rate, one_batch in pairs:
            yield Setting(depth, one_rate, one_batch, options.tokens, options.optimizer)


def _numbers(text: str, kind: type) -> list:  # type: ignore[type-arg]
    return [kind(part) for part in text.split(",")]


def encoded(room: Path) -> Path:
    """This Python's source as columns, by danlu's own first two stages."""
    from danlu.config import Data, Recipe, System, Tokenizer
    from danlu.graph import Life, Silent
    from danlu.recipe import Loaded

    library = Path(sysconfig.get_paths()["stdlib"])
    data = Data(path=[str(library / "**/*.py")], exclude=["test", "tests", "site-packages", "idlelib"], limit_mb=10)
    recipe = Recipe(
        task="language_modeling", data=data, tokenizer=Tokenizer(vocab_size=4096), system=System(runs=str(room))
    )
    return Life(Loaded(recipe, room / "recipe.toml")).run(Silent(), "encode").folders["encode"]


def trained(setting: Setting, columns: Path) -> dict[str, float]:
    """Train as a plan without anything to measure would; loss on held-out rows, and seconds."""
    from danlu import models, tasks
    from danlu.config import Train
    from danlu.data.columns import Columns
    from danlu.data.loader import Loader
    from danlu.modalities.text import Text
    from danlu.models.architecture import build
    from danlu.randomness import generator
    from danlu.train.loop import Training, evaluate
    from danlu.train.plan import Plan, prepare

    processor = Text.load(columns)
    train, held_out = (
        Loader(Columns(columns / "columns" / n), CONTEXT, long="split", seed=1) for n in ("train", "valid")
    )
    net = build(models.preset("gpt", processor.vocab_size, CONTEXT, setting.depth), generator(setting.seed, "init"))
    plan = Plan(depth=setting.depth, rows=setting.batch // CONTEXT, accumulate=1, context=CONTEXT, lr=setting.lr,
                optimizer=setting.optimizer, weight_decay=0.05, precision="bf16", attention="written",
                threads=torch.get_num_threads(), steps=setting.tokens // setting.batch)  # fmt: skip
    prepare(net, plan)
    start, training = time.perf_counter(), Training(tasks.load("language_modeling")(processor), net, Train(), plan, 1)
    for _ in training.events(train, None):
        pass
    taken = time.perf_counter() - start
    loss = evaluate(training.task, net, held_out, 16, 64)["loss"]
    return {"weights": sum(p.numel() for p in net.parameters()), "loss": round(loss, 4), "seconds": round(taken, 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--depths", default="2,4,6")
    parser.add_argument("--tokens", type=int, default=500_000)
    parser.add_argument("--lr", default="0.015,0.03,0.06")
    parser.add_argument("--batch", default="1024,2048,4096")
    parser.add_argument("--optimizer", default="muon")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        columns = encoded(Path(room))
        for setting in settings(options):
            row = vars(setting) | trained(setting, columns)
            print(json.dumps(row), flush=True)
            others = results.newest("dial").get("settings", [])
            kept = [each for each in others if not vars(setting).items() <= each.items()]
            results.keep("dial", {"context": CONTEXT, "settings": [*kept, row]})


if __name__ == "__main__":
    main()
