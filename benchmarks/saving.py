"""What a checkpoint costs a training on two processes that share the weights: written beside the steps, or waited for.

The same training (26.7M weights, fp32, AdamW, fully sharded) three times: without a checkpoint in its middle, with one
every few steps as danlu writes it, and with the same one waited for. What the whole takes longer, divided by the
checkpoints, is the price of one; its share of a minute is the price at the default interval.

    python benchmarks/saving.py [--steps 24] [--every 6] [--rounds 3]
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

WAYS = ("none", "beside", "waited for")
RANKS, INTERVAL = 2, 60.0


class Pace:
    """A view that notes when steps end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def progress(self, done: float, total: float, note: str) -> None:
        self.ends.append(time.perf_counter())

    def line(self, line: str) -> None: ...


def train(way: str, steps: int, every: int, room: Path) -> None:
    """One rank of the training; rank 0 prints its seconds from the first step's end to the last, writing included."""
    from danlu import ranks, tasks
    from danlu.config import Train
    from danlu.models import preset
    from danlu.models.architecture import build
    from danlu.randomness import generator
    from danlu.train import sharding
    from danlu.train.plan import Request
    from danlu.train.session import fit
    from danlu.train.trial import Synthetic, Vocabulary

    if way == "waited for":
        begun = sharding.Sharded.save

        def save(self: Any, *state: Any) -> None:
            begun(self, *state)
            self.settle()

        sharding.Sharded.save = save  # type: ignore[method-assign]
    net = build(preset("qwen3", 2048, 256, 8), generator(1, "init")).train()
    task = tasks.load("language_modeling")(Vocabulary(2048))
    told = Train(steps=steps, save_every=10**6 if way == "none" else every, batch_tokens=2048, precision="fp32",
                 optimizer="adamw", dropout=0.0, attention="sdpa", select="last")  # fmt: skip
    loader, pace = Synthetic(256, 2048, 10**6), Pace()
    request = Request(task, told, loader, None, True, time.monotonic(), parallel="fsdp")  # type: ignore[arg-type]
    fit(request, net, room, 1, pace)
    if ranks.rank() == 0:
        print(json.dumps({"steps": pace.ends[-1] - pace.ends[0], "all": time.perf_counter() - pace.ends[0]}))
    ranks.leave()


def run(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Both ranks in processes of their own, one thread each."""
    from danlu.ranks import environment, free_port

    port = free_port()
    with tempfile.TemporaryDirectory(dir=options.folder) as room:
        words = ["--way", way, "--steps", str(options.steps), "--every", str(options.every), "--room", room]
        started = [
            subprocess.Popen([sys.executable, __file__, *words], text=True, stdout=subprocess.PIPE,
                             env=os.environ | environment(rank, RANKS, port) | {"OMP_NUM_THREADS": "1"})
            for rank in range(RANKS)
        ]  # fmt: skip
        said = [process.communicate()[0] for process in started]
    return dict(json.loads(said[0].splitlines()[-1]))


def table(times: dict[str, list[float]], saves: int) -> dict[str, Any]:
    """Seconds of a training, and what one checkpoint adds, by the way it is written."""
    middle = {way: statistics.median(taken) for way, taken in times.items()}
    each = {way: (middle[way] - middle["none"]) / saves for way in WAYS[1:]}
    share = {way: round(cost / INTERVAL, 4) for way, cost in each.items()}
    seconds = {way: round(value, 2) for way, value in middle.items()}
    of_one = {way: round(cost, 3) for way, cost in each.items()}
    return {"ranks": RANKS, "checkpoints": saves, "seconds": seconds, "of_one": of_one, "share_of_a_minute": share,
            "runs": times}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--every", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where checkpoints are written: a real disk")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--room", type=Path, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()  # `make bench` hands the same words to every script
    if options.way:
        return train(options.way, options.steps, options.every, options.room)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            times[way].append(run(way, options)["steps"])
            print(way, round(times[way][-1], 2), flush=True)
    found = table(times, (options.steps - 1) // options.every) | {"steps": options.steps}
    print(json.dumps(found, indent=1))
    results.keep("saving", found)
    return None


if __name__ == "__main__":
    main()
