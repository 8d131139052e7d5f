"""Wall time to a validation loss on tinyshakespeare, by characters: `danlu run`, cold, beside nanoGPT's README command.

Both learn from the first nine tenths of the text and are measured on the last tenth (nats per character), as nanoGPT's
prepare.py cuts it. danlu's time is that of the whole command from an empty folder and an empty cache: start, data,
vocabulary, measuring the machine, training, saving. nanoGPT's is its train.py alone; its data were prepared before.
Settings were chosen on the last tenth of the TRAINING part only (docs/decisions/0009).

    python benchmarks/time_to_quality.py --text FOLDER/input.txt [--peers FOLDER] [--seeds 1 2 3] [--only 1.88]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import results
import tomli_w

# The README of nanoGPT, "I only have a macbook": its command for a CPU, letter for letter.
README = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 "
    "--batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
)
Settings = dict[str, dict[str, Any]]
SETTINGS: dict[str, Settings] = {  # in the exportable (Qwen3) form; the rates are danlu's own
    "1.88": {
        "model": {"depth": 3, "width": 128, "context": 64},
        "pretrain": {"tokens": "280k", "batch_tokens": 1024},
    },
    "1.60": {
        "model": {"depth": 4, "width": 256, "context": 128},
        "pretrain": {"tokens": "900k", "batch_tokens": 2048},
    },
}


def parts(text: str) -> tuple[str, str]:
    """Training and validation text, cut as nanoGPT's data/shakespeare_char/prepare.py does."""
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


# --- danlu -------------------------------------------------------------------------------------------


def danlu(goal: str, seed: int, text: str, room: Path) -> dict[str, Any]:
    """One cold `danlu run`: its wall time, and the loss of its model on text that it never saw."""
    train, held_out = parts(text)
    (room / "train.txt").write_text(train, "utf-8")
    (room / "recipe.toml").write_text(tomli_w.dumps(recipe(goal, seed)), "utf-8")
    environment = os.environ | {"XDG_CACHE_HOME": str(room / "cache")}
    command = [sys.executable, "-m", "danlu", "run", "recipe.toml", "--to", "pretrain", "--json"]
    start = time.perf_counter()
    ended = subprocess.run(command, cwd=room, env=environment, capture_output=True, text=True)
    wall = time.perf_counter() - start
    if ended.returncode:
        raise RuntimeError(ended.stdout + ended.stderr)
    folder = next((room / "runs" / "store").glob("pretrain-*"))
    facts = json.loads((folder / "metrics.json").read_text("utf-8"))
    kept = ("steps", "tokens", "training_seconds", "parameters")
    return {
        "seed": seed, "wall_seconds": round(wall, 1), "loss": loss(folder, held_out),
        "loss_windows_of_64": loss(folder, held_out, 64), **{name: facts[name] for name in kept},
    }  # fmt: skip


def recipe(goal: str, seed: int) -> dict[str, Any]:
    """A recipe that holds nothing out: the length was chosen before."""
    settings = SETTINGS[goal]
    return {
        "task": "language_modeling",
        "seed": seed,
        "data": {"path": "train.txt", "clean": [], "split": {"valid": 0.0, "test": 0.0}},
        "tokenizer": {"type": "char", "vocab_size": 324},
        "evaluate": {"ngram": 0, "samples": 0},
        **settings,
    }


def loss(folder: Path, text: str, window: int = 0) -> float:
    """Mean nats per character over consecutive windows (of the model's context) of the whole text."""
    import torch

    from danlu.model import Model

    model = Model.from_pretrained(folder)
    window = window or model.context
    ids = torch.tensor(model.processor.encode(text))
    rows = (len(ids) - 1) // window
    inputs, labels = (ids[i : i + rows * window].view(rows, window) for i in (0, 1))
    total = 0.0
    with torch.no_grad():
        for here in torch.arange(rows).split(8192 // window):
            places = torch.arange(window).expand(len(here), window).contiguous()
            batch = {"input_ids": inputs[here], "labels": labels[here], "position_ids": places,
                     "segment_ids": torch.ones_like(places)}  # fmt: skip
            total += float(model.task.measure(model.net, batch)["loss"])
    return round(total / (rows * window), 4)


# --- nanoGPT -----------------------------------------------------------------------------------------


def nanogpt(folder: Path, text: str, room: Path) -> dict[str, Any]:
    """The README's command in a copy of the clone: wall time, and the loss it prints last (of 20 batches)."""
    copied = room / "nanoGPT"
    shutil.copytree(folder / "nanoGPT", copied, ignore=shutil.ignore_patterns(".git", "assets"))
    data = copied / "data" / "shakespeare_char"
    (data / "input.txt").write_text(text, "utf-8")
    python = results.python(folder)
    subprocess.run([python, "prepare.py"], cwd=data, check=True, capture_output=True)
    start = time.perf_counter()
    ended = subprocess.run([python, "train.py", *README.split()], cwd=copied, capture_output=True, text=True)
    wall = time.perf_counter() - start
    told = [line for line in ended.stdout.splitlines() if line.startswith("step ")]
    if ended.returncode or not told:
        raise RuntimeError(ended.stdout[-500:] + ended.stderr[-2000:])
    return {"wall_seconds": round(wall, 1), "loss": float(told[-1].rpartition(" ")[2]), "tokens": 2000 * 12 * 64}


# --- the table ---------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", type=Path, default=Path(os.environ.get("DANLU_SHAKESPEARE", "input.txt")))
    parser.add_argument("--peers", type=Path, default=Path(os.environ.get("DANLU_PEERS", "peers")))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--more", action="store_true", help="add to the runs of today, where it is done in pieces")
    parser.add_argument("--only", choices=[*SETTINGS, "nanoGPT"])
    options, _ = parser.parse_known_args()  # `make bench` hands the same words to every script
    if not options.text.exists():
        print(f"no time to quality: {options.text} is not there (--text; benchmarks/README.md)", file=sys.stderr)
        return
    text = options.text.read_text("utf-8")
    for name in [options.only] if options.only else ["nanoGPT", *SETTINGS]:
        table = measured(name, text, options)
        print(json.dumps({name: table}, indent=1))
        if table:
            results.keep("time_to_quality", {name: table})


def measured(name: str, text: str, options: argparse.Namespace) -> dict[str, Any]:
    """The runs of one row."""
    if name == "nanoGPT" and not (options.peers / "nanoGPT").exists():
        print(f"nanoGPT: not measured, {options.peers}/nanoGPT is not there", file=sys.stderr)
        return {}
    runs = [run for run in results.newest("time_to_quality").get(name, {}).get("runs", []) if options.more]
    for seed in options.seeds[:1] if name == "nanoGPT" else options.seeds:
        with tempfile.TemporaryDirectory() as room:
            place = Path(room)
            made = nanogpt(options.peers, text, place) if name == "nanoGPT" else danlu(name, seed, text, place)
            runs.append(made)
    walls, losses = [run["wall_seconds"] for run in runs], [run["loss"] for run in runs]
    return {"wall_seconds": statistics.median(walls), "worst_loss": max(losses), "runs": runs}


if __name__ == "__main__":
    main()
