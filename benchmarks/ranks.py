"""One training on 1, 2 and 4 processes of this machine: step time and peak memory beside what `--plan --system` says.

The cluster that is forecast is this machine, described by what as many processes reach at the same moment: how fast one
computes the whole step, copies in its own memory, and passes what its way of sharing passes. Processes that share two
cores are slower devices, and gloo passes each kind of sum at a speed of its own; what the formulas are then worth is
how work, memory and traffic are shared out.

    python benchmarks/ranks.py [--steps 8] [--ranks 1 2 4] [--ways ddp fsdp tensor]
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import results

THREAD = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
RECIPE = """
task = "language_modeling"
[data]
path = "texts"
[tokenizer]
vocab_size = 2048
[model]
depth = 8
context = 256
[train]
steps = {steps}
batch_tokens = 2048
precision = "fp32"
optimizer = "adamw"
dropout = 0.0
attention = "sdpa"
evaluate_every = 4
[system]
threads = 1
"""
REACHED = """
import json, time, torch, torch.distributed as dist
from danlu import ranks
ranks.join()
count, values = ranks.count(), 2**22  # a block of the network holds three million
whole, part, other = torch.ones(values), torch.ones(values // count), torch.ones(values)
few = torch.ones(2**20)  # activations of one micro-batch

def best(job, rounds=6):
    times = []
    for _ in range(rounds):
        dist.barrier()
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]

ring = (count - 1) / count * 4
found = {
    "memory": 8 * values / best(lambda: other.copy_(whole)),
    "ddp": 2 * ring * values / best(lambda: dist.all_reduce(whole)),
    "fsdp": 3 * ring * values / (
        2 * best(lambda: dist.all_gather_into_tensor(whole, part))
        + best(lambda: dist.reduce_scatter_tensor(part, whole))
    ),
    "tensor": 2 * ring * len(few) / best(lambda: dist.all_reduce(few)),
}
if ranks.rank() == 0:
    print(json.dumps(found))
ranks.leave()
"""


def project(folder: Path, steps: int) -> Path:
    """Two megabytes of words, encoded."""
    random = np.random.Generator(np.random.PCG64(1))
    words = ["".join(random.choice(list("abcdefghijklmnop"), int(n))) for n in random.integers(2, 9, 3000)]
    lines = [" ".join(random.choice(words, 60)) + "." for _ in range(6000)]
    (folder / "texts").mkdir()
    (folder / "texts" / "words.txt").write_text("\n\n".join(lines))
    (folder / "recipe.toml").write_text(RECIPE.format(steps=steps))
    danlu(folder, "--to", "encode").wait()
    return folder


def danlu(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "danlu", "run", "recipe.toml", "--quiet", *arguments]
    return subprocess.Popen(command, cwd=folder, env=os.environ | THREAD)


def measured(folder: Path, ranks: int, parallel: str) -> dict[str, Any]:
    """The middle step, and the peak memory of the largest process, of one training from its beginning."""
    runs = f"runs-{ranks}-{parallel}"
    keys = [f"system.devices={ranks}", f"system.parallel={parallel}", f"system.runs={runs}"]
    danlu(folder, "--to", "encode", keys[-1]).wait()
    process, peak = danlu(folder, "--to", "pretrain", *keys), 0
    while process.poll() is None:
        peak = max([peak, *(_peak(pid) for pid in (process.pid, *_children(process.pid)))])
        time.sleep(0.05)
    return {"ranks": ranks, "parallel": parallel, "seconds": _step(folder / runs), "bytes": peak}


def beside(folder: Path, count: int) -> float:
    """Seconds of a whole step of one process, while as many as `count` take such steps for themselves."""
    names = [f"runs-alone-{count}-{number}" for number in range(count)]
    for name in names:
        danlu(folder, "--to", "encode", f"system.runs={name}").wait()
    for process in [danlu(folder, "--to", "pretrain", f"system.runs={name}") for name in names]:
        process.wait()
    return statistics.median(_step(folder / name) for name in names)


def _step(runs: Path) -> float:
    """The middle step of a training, the first left out."""
    log = next((runs / "store").glob("pretrain-*/metrics.jsonl")).read_text()
    steps = [entry["seconds"] for entry in map(json.loads, log.splitlines()) if "loss" in entry]
    return statistics.median(steps[1:])


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _peak(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def reached(count: int) -> dict[str, float]:
    """Bytes per second that each of the processes moves in its memory, and sends in each way of sharing."""
    from danlu.ranks import environment, free_port

    port = free_port()
    command = [sys.executable, "-W", "ignore", "-c", REACHED]
    started = [
        subprocess.Popen(command, env=os.environ | environment(rank, count, port) | THREAD, text=True,
                         stdout=subprocess.PIPE)
        for rank in range(count)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in started]
    return dict(json.loads(said[0]))


def forecast(folder: Path, row: dict[str, Any], alone: float, rates: dict[str, float]) -> dict[str, Any]:
    """Seconds and bytes that the calculator gives for a cluster of this machine's processes.

    `alone` is a whole step of one process beside as many others; what it moves in its memory is no computing.
    """
    from danlu.cluster import Cluster, moved, need, planned
    from danlu.graph import Life
    from danlu.recipe import load_recipe

    life = Life(load_recipe(folder / "recipe.toml", ["system.runs=runs-1-ddp"]))
    state = next(each for each in life.states() if each.node.name == "pretrain")
    net, plan, _ = planned(life, state)
    computing = alone - moved(net, plan) / rates["memory"]
    cluster = Cluster(
        devices=row["ranks"], memory_gb=1000.0, tflops=plan.step_gflop / computing / 1e3, utilisation=1.0,
        memory_gb_s=rates["memory"] / 1e9, link_gb_s=(rates[row["parallel"]] or 1e9) / 1e9, disk_gb_s=1.0,
        parallel=row["parallel"],
    )  # fmt: skip
    found = need(cluster, net, replace(plan, device="cpu"))  # it is this machine's
    parts = {"computing": found.computing, "moving": found.moving, "passing": found.passing}
    step = sum(parts.values())  # gloo passes nothing beside the computing of a processor
    return {"seconds_forecast": step, "bytes_forecast": found.memory, "parts_forecast": parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--ways", nargs="*", default=["ddp", "fsdp", "tensor"])
    options, _ = parser.parse_known_args()  # `make bench` hands the same words to every script
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = project(Path(temporary), options.steps)
        for ranks in options.ranks:
            rates, alone = reached(ranks), beside(folder, ranks)
            for parallel in options.ways if ranks > 1 else ["ddp"]:
                row = measured(folder, ranks, parallel)
                row |= forecast(folder, row, alone, rates) | {"alone": alone, "rates": rates}
                rows.append(row)
                print(_line(row), flush=True)
    results.keep("ranks", {"rows": rows})


def _line(row: dict[str, Any]) -> str:
    seconds, size = row["seconds_forecast"] / row["seconds"] - 1, row["bytes_forecast"] / row["bytes"] - 1
    parts = " + ".join(f"{value:.3f}" for value in row["parts_forecast"].values())
    return (
        f"{row['ranks']} {row['parallel']:6} step {row['seconds']:.3f} s, forecast {row['seconds_forecast']:.3f}"
        f" ({seconds:+.0%}) = {parts}   "
        f"peak {row['bytes'] / 1e6:,.0f} MB, forecast {row['bytes_forecast'] / 1e6:,.0f} ({size:+.0%})"
    )


if __name__ == "__main__":
    main()
