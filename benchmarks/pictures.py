"""Training on pictures, danlu beside plain torch: the same sizes, rows, batch, epochs, precision and kind of optimizer.

danlu's side is `danlu run` of a recipe; the other is the loop that its users write: PIL and DataLoader's workers,
channels-last, bf16 autocast, AdamW. ResNet-18 for small pictures is by hand there, with the norm of the batch that is
usual ("torch") and with danlu's over groups of channels, and standardized filters ("torch, GroupNorm": the same model);
the ViT is that of transformers, as small as ViT-tiny, with patches of 4 pixels. Both sides move pictures and turn them
left and right.

Each side is a process of its own, and they take turns, round by round. Pictures a second are those of the middle steps
of each third of a training; the first five are left out. Before anything runs it is checked that the sides have the
same weights and operations. "danlu, growing" is the same training with pictures that begin at half their side
(options.grow): as many steps and pictures, but fewer operations; docs/en/how-to/pictures.md says what it learns.

With --defaults each side is as it comes: torch in fp32, in its usual memory format, pictures read in the loop itself;
growing ones are what `danlu init` writes.

    python benchmarks/pictures.py [resnet vit] [--rows 2560] [--epochs 1] [--batch 64] [--rounds 1] [--defaults]
"""

import argparse
import json
import statistics
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import results
from picture_peers import CLASSES, Peer, counted, resnet18, train, vit_tiny
from transfer import measured

DATA = Path(__file__).parents[2] / "shared" / "data"
WARM = 5  # steps that are not counted: buffers are made there, workers start
MODELS = {"resnet": "18", "vit": "tiny"}  # and their sizes
RECIPE = """
task = "image_classification"
seed = 1
model = {{ arch = "{name}", size = "{size}" }}
data = {{ path = "{rows}/train", test = "{rows}/test", split = {{ valid = 0.0, test = 0.0 }} }}
options = {{ crop = 4, flip = true, grow = {grow} }}
train = {{ epochs = {epochs}, batch_tokens = {batch}{more} }}
"""
OURS = {"danlu": 1.0, "danlu, growing": 0.5}  # and the share of their side that pictures begin with
EQUAL = ', optimizer = "adamw", lr = 1e-3, weight_decay = 0.05, dropout = 0.0, precision = "{precision}"'


def peers(name: str) -> dict[str, Peer]:
    """The other sides of a model; those of ResNet-18 differ in their norm."""
    if name == "vit":
        return {"transformers": vit_tiny}
    return {"torch": lambda: resnet18("batch"), "torch, GroupNorm": lambda: resnet18("group")}


# --- rows --------------------------------------------------------------------------------------------


def unpacked(archive: Path, folder: Path, each: int) -> None:
    """The first pictures of each class of an archive <split>/<class>/<picture>."""
    seen: dict[str, int] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            kind = str(Path(member.name).parent)
            if member.isfile() and seen.setdefault(kind, 0) < each:
                seen[kind] += 1
                tar.extract(member, folder, filter="data")


# --- danlu's side ------------------------------------------------------------------------------------


def danlu(name: str, side: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """`danlu run` of a recipe of a few lines."""
    more = "" if options.defaults else EQUAL.format(precision=options.precision)
    written = RECIPE.format(
        name=name,
        size=MODELS[name],
        rows=options.rows_in.as_posix(),
        epochs=float(options.epochs),
        batch=options.batch,
        grow=OURS[side],
        more=more,
    )
    (folder / "recipe.toml").write_text(written, "utf-8")
    command = [sys.executable, "-m", "danlu", "run", "recipe.toml", *options.set]
    cost = measured(command, folder, "runs/store/pretrain-*/metrics.jsonl")
    facts, tests = (json.loads(next(folder.glob(f"runs/store/{stage}-*/metrics.json")).read_text("utf-8"))
                    for stage in ("pretrain", "evaluate"))  # fmt: skip
    log = next(folder.glob("runs/store/pretrain-*/metrics.jsonl")).read_text("utf-8").splitlines()
    steps = [line["seconds"] for line in map(json.loads, log) if "seconds" in line]
    return cost | {
        "step_seconds": steps,
        "waiting": facts["waiting_for_data"],
        "accuracy": tests["models"]["base"]["accuracy"],
    }


# --- plain torch -------------------------------------------------------------------------------------


def torch_side(name: str, side: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The loop of picture_peers.py in a process of its own."""
    words = ["--side", side, "--rows-in", str(options.rows_in), "--epochs", str(options.epochs),
             "--batch", str(options.batch), "--precision", "fp32" if options.defaults else options.precision,
             "--workers", "0" if options.defaults else str(options.workers)]  # fmt: skip
    command = [sys.executable, str(Path(__file__).resolve()), name, *words]
    cost = measured([*command, *(["--defaults"] if options.defaults else [])], folder, "first-step")
    return cost | json.loads((folder / "figures.json").read_text("utf-8"))


# --- the table ---------------------------------------------------------------------------------------


def checked(name: str) -> dict[str, dict[str, float]]:
    """Weights and operations of each side; AssertionError where they are not about the same."""
    from danlu import models
    from danlu.models.architecture import build
    from danlu.randomness import generator

    sizes = models.family(name).SIZES[MODELS[name]]
    own = models.preset(name, 0, 1, image=32, channels=3, **sizes)
    net = build(replace(own, head=models.label_head(own, CLASSES)), generator(1, "init"))
    found = {"danlu": counted(net, lambda pixels: net({"pixel_values": pixels}))}
    found |= {side: counted(*made()) for side, made in peers(name).items()}
    for side, each in found.items():
        for key, value in each.items():
            assert abs(value / found["danlu"][key] - 1) < 0.01, (side, key, found)
    return found


def row(runs: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """The mean of the middle steps of each third, over all rounds, and means of what else was measured."""
    thirds = [[seconds for run in runs for seconds in _third(run["step_seconds"], part)] for part in range(3)]
    middle = statistics.mean(map(statistics.median, thirds))
    means = {key: round(statistics.mean(run[key] for run in runs), 4)
             for key in ("seconds", "first_step", "mb", "waiting", "accuracy")}  # fmt: skip
    return {"step_ms": round(1000 * middle, 1), "pictures_per_second": round(batch / middle, 1), **means}


def _third(steps: list[float], part: int) -> list[float]:
    """The steps of a third of a training, but for the first ones of all."""
    bounds = [round(len(steps) * at / 3) for at in range(4)]
    return steps[max(bounds[part], WARM) : bounds[part + 1]]


def beside(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All sides in turn, round by round."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in (*OURS, *peers(name))}
    runs = {side: each for side, each in runs.items() if not options.sides or side in options.sides.split(";")}
    for number in range(options.rounds):
        for side in runs:
            folder = options.room / name / str(number) / side.replace(", ", "-")
            folder.mkdir(parents=True)
            runs[side].append(
                danlu(name, side, options, folder) if side in OURS else torch_side(name, side, options, folder)
            )
            print(name, side, row(runs[side][-1:], options.batch), flush=True)
    sides = {side: row(each, options.batch) for side, each in runs.items()}
    for side, each in sides.items():
        for ours, key in zip(OURS, ("danlu_is_faster_by", "growing_is_faster_by"), strict=True):
            if ours in sides and side not in OURS:
                each[key] = round(sides[ours]["pictures_per_second"] / each["pictures_per_second"], 2)
    return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rows", type=int, default=2560)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--defaults", action="store_true", help="each side as it comes, but for rows and batch")
    parser.add_argument("--sides", default="", help="only these, separated by semicolons")
    parser.add_argument("--set", nargs="*", default=[], help="keys of danlu's recipe, as on its command line")
    for word, kind in (("--side", str), ("--rows-in", Path)):
        parser.add_argument(word, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        return train(peers(options.models[0])[options.side], options)
    with tempfile.TemporaryDirectory() as room:
        options.room, options.rows_in = Path(room), Path(room) / "rows"
        unpacked(options.data / "cifar10_jpg" / "train_16k.tar.xz", options.rows_in, options.rows // 10)
        unpacked(options.data / "cifar10_jpg" / "test.tar.xz", options.rows_in, 100)
        for name in options.models:
            size = {"rows": options.rows, "epochs": options.epochs, "batch": options.batch, "rounds": options.rounds}
            form = f"{name} {'defaults' if options.defaults else options.precision}"
            made = checked(name)
            print(json.dumps(made), flush=True)
            table = {form: size | {"made": made, "sides": beside(name, options)}}
            print(results.keep("pictures", table), json.dumps(table, indent=1))
    return None


if __name__ == "__main__":
    main()
