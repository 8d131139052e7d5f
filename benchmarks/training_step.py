"""One training step, danlu beside its peers: same sizes, same tokens per step, bf16, clipped at 1 unless said.

Each side lives in a process of its own and steps in turn (A B C A B C ...), so that none sees another's memory and a
busy moment of the machine falls on all. Twice: in the default environment, and with the allocator's settings equal
and best for all (memory is kept, on huge pages). Medians, paired ratios and peak memory go to results/.

    python benchmarks/training_step.py [--peers FOLDER] [--rounds 20] [--rows 16] [--form gpt2] [--environment default]

Sides that are not installed are left out, and said so.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import results
import torch
from peers import Sizes, Turns, litgpt, nanochat, nanogpt, products, trainer, transformers_loop
from torch import nn

Side = Callable[[Sizes, Turns], None]
ENVIRONMENTS = {
    "default": {},
    "tuned": {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "1000000000000",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    },
}
VERSIONS = """
import importlib.metadata, json
found = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
print(json.dumps({name: found[name] for name in ("torch", "transformers", "accelerate", "litgpt") if name in found}))
"""
WARM = 3  # steps of a side before any is counted: compiling happens there


# --- danlu's side ------------------------------------------------------------------------------------


def danlu(form: str, optimizer: str, sizes: Sizes, turns: Turns) -> None:
    """danlu's session as `danlu run` runs it: its plan, its loop, its log; only the batches are handed to it."""
    from danlu import models, tasks
    from danlu.config import Train
    from danlu.models.architecture import build
    from danlu.randomness import generator
    from danlu.train.plan import Request
    from danlu.train.session import fit

    lr = {"adamw": 1e-3, "muon": 0.03}[optimizer]
    net = build(models.preset(form, sizes.vocab, sizes.context, sizes.depth), generator(1, "init")).train()
    turns.ready(net, products(net, sizes))
    train = Train(optimizer=optimizer, lr=lr, weight_decay=0.1, batch_tokens=sizes.rows * sizes.context,
                  steps=10**6, save_every=10**6, dropout=0.0)  # fmt: skip
    task = tasks.load("language_modeling")(Processor(sizes.vocab))  # type: ignore[arg-type]
    request = Request(task, train, Feed(turns), None, True, time.monotonic())  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as room:
        fit(request, net, Path(room), 1, Pace(turns))


class Pace:
    """A view of the session: a step is over when its progress is told."""

    def __init__(self, turns: Turns):
        self.turns = turns

    def progress(self, done: float, total: float, note: str) -> None:
        self.turns()

    def line(self, line: str) -> None:
        print(line, file=sys.stderr)


class Processor:
    """A vocabulary of which only the size matters."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def token_bytes(self) -> list[int]:
        return [4] * self.vocab_size


class Feed:
    """A loader of random rows, each one document."""

    def __init__(self, turns: Turns):
        self.turns, self.context = turns, turns.sizes.context
        self.predictions = len(self) * self.context

    def __len__(self) -> int:
        return 100_000

    def train(self, step: int, micro: int, shape: Any) -> dict[str, torch.Tensor]:
        ids = self.turns.ids()[: shape.rows]
        inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        places = torch.arange(self.context).expand(inputs.shape).contiguous()
        return {
            "input_ids": inputs, "labels": labels, "position_ids": places, "segment_ids": torch.ones_like(inputs)
        }  # fmt: skip


# --- what can be measured ----------------------------------------------------------------------------


def sides(form: str, folder: Path) -> dict[str, Side]:
    """All sides of a form; those of one form have the same weights in products, nanochat's own aside."""
    found: dict[str, Side] = {
        "danlu": partial(danlu, form, "adamw"),
        "transformers, bare loop": partial(transformers_loop, form),
        "transformers Trainer": partial(trainer, form),
        "LitGPT": partial(litgpt, folder, form),
    }
    if form == "gpt2":
        found["nanoGPT"] = partial(nanogpt, folder, False)
        found["nanoGPT, bf16"] = partial(nanogpt, folder, True)
    else:
        found["danlu, Muon"] = partial(danlu, form, "muon")
        found["nanochat's model, Muon"] = partial(nanochat, folder)
    return found


# --- one process a side ------------------------------------------------------------------------------


class Worker(Turns):
    """The pace of a side that is told by its parent: a line in is a step to take, a line out its seconds."""

    def __init__(self, sizes: Sizes):
        super().__init__(sizes)
        self.begun = 0.0
        self.weights: dict[str, int] = {}

    def ready(self, model: nn.Module, products: int | None = None) -> None:
        self.weights = {"weights": sum(p.numel() for p in model.parameters()), "in_products": products or 0}

    def __call__(self) -> None:
        if self.begun:
            print(json.dumps(time.perf_counter() - self.begun), flush=True)
        if sys.stdin.readline().strip() != "step":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({**self.weights, "peak_mb": round(peak)}), flush=True)
            os._exit(0)
        self.begun = time.perf_counter()


class Process:
    """A side in its own process."""

    def __init__(self, name: str, form: str, environment: str, peers: Path):
        mine = sys.executable if name.startswith("danlu") else results.python(peers)
        command = [mine, __file__, *sys.argv[1:], "--worker", name, "--form", form]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=os.environ | ENVIRONMENTS[environment],
        )  # fmt: skip

    def ask(self, line: str) -> Any:
        """The answer to a line; raises RuntimeError with the last words of a process that has ended."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words say why
        while answer := self.process.stdout.readline():
            try:
                return json.loads(answer)
            except ValueError:  # a peer that prints what it does
                continue
        self.process.wait()
        self.log.seek(0)
        raise RuntimeError((self.log.read().strip().splitlines() or ["it ended"])[-1])


# --- the table ---------------------------------------------------------------------------------------


def measured(form: str, environment: str, options: argparse.Namespace) -> dict[str, Any]:
    """Steps in turn; each side starts and warms up alone."""
    running: dict[str, Process] = {}
    for name in options.sides.split(";") if options.sides else sides(form, options.peers):
        side = Process(name, form, environment, options.peers)
        try:
            for _ in range(WARM):
                side.ask("step")
            running[name] = side
        except RuntimeError as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(options.rounds):
        for name, side in running.items():
            times[name].append(side.ask("step"))
    return {name: _row(name, times, side.ask("end"), options.rows) for name, side in running.items()}


def _row(name: str, times: dict[str, list[float]], end: dict[str, int], rows: int) -> dict[str, Any]:
    """Milliseconds (median, quartiles), what was computed, and how much faster danlu is in the same rounds."""
    from danlu.train import cost

    sizes = Sizes(rows=rows)
    ours = times.get("danlu, Muon" if name.endswith(", Muon") else "danlu", times[name])
    low, middle, high = statistics.quantiles(times[name], n=4)
    flops = cost.flops_per_token(end["in_products"], sizes.depth, sizes.width, sizes.context)
    return {
        "milliseconds": round(1000 * middle, 1),
        "quartiles": [round(1000 * low, 1), round(1000 * high, 1)],
        "tokens_per_second": round(rows * sizes.context / middle),
        "mflop_per_token": round(flops / 1e6, 1),
        "share_of_bf16_peak": round(flops * rows * sizes.context / middle / cost.peak("bf16"), 3),
        "danlu_is_faster_by": round(statistics.median(b / a for a, b in zip(ours, times[name], strict=True)), 2),
        **end,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--form", choices=["gpt2", "qwen3"])
    parser.add_argument("--environment", choices=list(ENVIRONMENTS))
    parser.add_argument(
        "--sides", default="", help="only these, separated by semicolons; the others stay as measured before"
    )
    parser.add_argument("--peers", type=Path, default=Path(os.environ.get("DANLU_PEERS", "peers")))
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()  # `make bench` hands the same words to every script
    if options.rounds < 2:
        parser.error("a median and its quartiles need --rounds 2 or more")
    sizes = Sizes(rows=options.rows)
    if options.worker:
        return sides(options.form, options.peers)[options.worker](sizes, Worker(sizes))
    for environment in [options.environment] if options.environment else ENVIRONMENTS:
        for form in [options.form] if options.form else ["gpt2", "qwen3"]:
            table = measured(form, environment, options)
            print(json.dumps(table, indent=1))
            name = f"{form}, {environment}"
            others = results.newest("training_step").get(name, {}).get("sides", {}) if options.sides else {}
            what = {"rounds": options.rounds, "rows": options.rows, "sides": others | table}
            results.keep("training_step", {"peers": commits(options.peers), name: what})
    return None


def commits(folder: Path) -> dict[str, str]:
    """What was compared with: the commits of the clones, the versions of what is installed."""
    clones = {path.name: results.commit(path) for path in sorted(folder.glob("*/")) if (path / ".git").exists()}
    told = subprocess.run([results.python(folder), "-c", VERSIONS], capture_output=True, text=True)
    return clones | dict(json.loads(told.stdout or "{}"))


if __name__ == "__main__":
    main()
