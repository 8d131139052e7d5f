"""A pretrained encoder moved to a task, beside transformers' Trainer: the same folder, rows, epochs, precision, seeds.

Each side is a process of its own and ends with its figures on the test rows; the Trainer trains on the rows that danlu
prepared. Rates, batches and schedules are those that each side takes by itself, but for the Trainer's batch of 32. Both
keep the weights that did best on the rows to validate on; the Trainer looks at them after each epoch.

With --defaults each side is as it comes, but for the epochs: danlu chooses its precision and packs rows to tokens; the
Trainer takes 8 rows a step in fp32, padded to the longest, and neither looks nor chooses.

    python benchmarks/transfer.py --base FOLDER [--data ../shared/data] [--seeds 3] [sst2 trec relations]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import results

DATA = Path(__file__).parents[2] / "shared" / "data"
BEGINNING = """
        seed = {seed}
        model = {{ base = "{base}" }}
        train = {{ epochs = {epochs}{precision} }}
"""
RECIPES = {
    "sst2": """
        task = "text_classification"
        [data]
        path = "DATA/sst2/train.tsv"
        valid = "DATA/sst2/dev.tsv"
        test = "DATA/sst2/test.tsv"
        header = false
        columns = { text = "1", label = "2" }
    """,
    "trec": """
        task = "text_classification"
        [data]
        path = "DATA/trec/train.label"
        test = "DATA/trec/test.label"
        pattern = "(?P<label>[A-Z]+)(?::\\\\w+)?\\\\s(?P<text>.*)"
        split = { valid = 0.05, test = 0.0 }
    """,
    "relations": """
        task = "relation_extraction"
        [data]
        path = "DATA/semeval2010_task8/TRAIN_FILE.TXT"
        test = "DATA/semeval2010_task8/TEST_FILE_FULL.TXT"
        format = "semeval"
        split = { valid = 0.05, test = 0.0 }
    """,
}
FIGURE = {"sst2": "accuracy", "trec": "accuracy", "relations": "relation_f1"}
EPOCHS = {"sst2": 3.0, "trec": 5.0, "relations": 5.0}
MARKS = ["<e1>", "</e1>", "<e2>", "</e2>"]
BATCH = 32


def measured(command: list[str], folder: Path, first: str) -> dict[str, Any]:
    """Run a command; its seconds, those until a file appears that its first step writes, and its peak memory."""
    started, seen = time.monotonic(), 0.0
    log = folder / "said.log"
    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            seen = seen or (time.monotonic() - started if _written(folder, first) else 0.0)
            time.sleep(0.02)
    if ended[1]:
        raise RuntimeError(log.read_text("utf-8", "replace")[-2000:])
    seconds = time.monotonic() - started
    return {"seconds": round(seconds, 1), "first_step": round(seen, 2), "mb": round(ended[2].ru_maxrss / 1024)}


def _written(folder: Path, pattern: str) -> bool:
    return any(path.stat().st_size for path in folder.glob(pattern))


def danlu(name: str, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """`danlu run` of a recipe of a few lines."""
    precision = "" if options.defaults else f', precision = "{options.precision}"'
    epochs = options.epochs or EPOCHS[name]
    recipe = BEGINNING.format(seed=seed, base=options.base.resolve().as_posix(), epochs=epochs, precision=precision)
    recipe += RECIPES[name].replace("DATA", options.data.resolve().as_posix())
    (folder / "recipe.toml").write_text("\n".join(line.strip() for line in recipe.splitlines()), "utf-8")
    command = [sys.executable, "-m", "danlu", "run", "recipe.toml", *options.set]
    cost = measured(command, folder, "runs/store/finetune-*/metrics.jsonl")
    facts, tests = (json.loads(next(folder.glob(f"runs/store/{stage}-*/metrics.json")).read_text("utf-8"))
                    for stage in ("finetune", "evaluate"))  # fmt: skip
    log = next(folder.glob("runs/store/finetune-*/metrics.jsonl")).read_text("utf-8").splitlines()
    steps = sum(line["seconds"] for line in map(json.loads, log) if "seconds" in line)
    told = json.loads(next(folder.glob("runs/store/encode-*/tokens.json")).read_text("utf-8"))
    return cost | {
        "training": round(steps, 1),
        "examples_per_second": round(told["splits"]["train"]["rows"] * epochs / steps, 1),
        "figure": tests["models"]["base"][FIGURE[name]],
        "steps": facts["steps"],
    }


def trainer(name: str, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The Trainer in a process of its own, on rows that danlu prepared."""
    rows = next((options.rows / name / str(seed) / "danlu").glob("runs/store/prepare-*/rows"))
    words = ["--task", name, "--seed", str(seed), "--rows", str(rows), "--precision", options.precision]
    words += ["--epochs", str(options.epochs or EPOCHS[name]), *(["--defaults"] if options.defaults else [])]
    command = [sys.executable, str(Path(__file__).resolve()), "--base", str(options.base.resolve()), *words]
    cost = measured(command, folder, "first-step")
    return cost | json.loads((folder / "figures.json").read_text("utf-8"))


def train(options: argparse.Namespace) -> None:
    """The Trainer's side: as its users write it."""
    import numpy as np
    from pyarrow import parquet
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    name = options.task
    learned, valid, held_out = (
        parquet.read_table(options.rows / f"{split}-00000.parquet").to_pylist() for split in ("train", "valid", "test")
    )
    labels = sorted({row["label"] for row in learned})
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForSequenceClassification.from_pretrained(options.base, num_labels=len(labels))
    if name == "relations":
        tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
        model.resize_token_embeddings(len(tokenizer))

    def encoded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        told = tokenizer([row["text"] for row in rows], truncation=True, max_length=128)["input_ids"]
        return [{"input_ids": ids, "labels": labels.index(row["label"])} for ids, row in zip(told, rows, strict=True)]

    class First(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            Path("first-step").write_text("1")

    told = TrainingArguments(
        output_dir="out", seed=options.seed, num_train_epochs=options.epochs, use_cpu=True, report_to=[],
        disable_tqdm=True, logging_strategy="no", **({} if options.defaults else settings(options.precision)),
    )  # fmt: skip

    def reached(told: Any) -> dict[str, float]:
        return {"figure": figure_of(name, told.predictions.argmax(-1), told.label_ids, labels)}

    work = Trainer(model, told, train_dataset=encoded(learned), eval_dataset=encoded(valid), compute_metrics=reached,
                   data_collator=DataCollatorWithPadding(tokenizer), callbacks=[First()])  # fmt: skip
    training = work.train().metrics["train_runtime"]
    found = work.predict(encoded(held_out)).predictions.argmax(-1)  # type: ignore[arg-type]
    true = np.array([labels.index(row["label"]) for row in held_out])
    figure = figure_of(name, found, true, labels)
    figures = {"training": round(training, 1), "figure": figure, "steps": work.state.global_step}
    figures["examples_per_second"] = round(len(learned) * options.epochs / training, 1)
    Path("figures.json").write_text(json.dumps(figures))


def settings(precision: str) -> dict[str, Any]:
    """What makes the Trainer do as danlu does: larger batches, the same precision, the best weights kept."""
    return {
        "per_device_train_batch_size": BATCH, "per_device_eval_batch_size": 64, "bf16": precision == "bf16",
        "save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True,
        "metric_for_best_model": "figure",
    }  # fmt: skip


def figure_of(name: str, found: Any, true: Any, labels: list[str]) -> float:
    """The figure of a task, from the confusion matrix."""
    import numpy as np

    from danlu.metrics import relations

    matrix = np.zeros((len(labels), len(labels)))
    np.add.at(matrix, (true, found), 1)
    return (
        float(relations.summary(matrix, labels)[FIGURE[name]]) if name == "relations" else float((found == true).mean())
    )


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each figure, and the deviation of what was reached."""
    mean = {key: round(statistics.mean(run[key] for run in runs), 4) for key in runs[0]}
    return mean | {"deviation": round(statistics.pstdev([run["figure"] for run in runs]), 4), "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(RECIPES))
    parser.add_argument("--base", type=Path, required=True, help="a folder of a pretrained encoder")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--defaults", action="store_true", help="each side as it comes, but for the epochs")
    parser.add_argument("--epochs", type=float, help="instead of those of the task")
    parser.add_argument("--set", nargs="*", default=[], help="keys of danlu's recipe, as on its command line")
    parser.add_argument("--name", default="transfer", help="of the table in the results")
    for name, kind in (("--task", str), ("--seed", int), ("--rows", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        return train(options)
    with tempfile.TemporaryDirectory() as room:
        options.rows = Path(room)
        for name in options.tasks:
            form = "defaults" if options.defaults else options.precision
            print(results.keep(options.name, {f"{name} {form}": _beside(name, options)}))


def _beside(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn, seed by seed."""
    runs: dict[str, list[dict[str, Any]]] = {"danlu": [], "trainer": []}
    for seed in range(1, options.seeds + 1):
        for side in runs:
            folder = options.rows / name / str(seed) / side
            folder.mkdir(parents=True)
            runs[side].append((danlu if side == "danlu" else trainer)(name, seed, options, folder))
            print(name, side, runs[side][-1], flush=True)
    return {side: summary(each) for side, each in runs.items()}


if __name__ == "__main__":
    main()
