"""One training on 1, 2 and 4 processes of this machine: step time and peak memory beside what `--plan --system` says.

The cluster that is forecast is this machine, described by two measurements: the speed of one process, and how fast
processes sum. So the first row is right by construction, and the others show what the formulas are worth.
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
from pathlib import Path
from typing import Any

import numpy as np
import results

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
SUM = """
import os, time, torch
from danlu import ranks
ranks.join()
flat, times = torch.ones(2**22), []
for _ in range(6):
    start = time.perf_counter()
    torch.distributed.all_reduce(flat.fill_(1.0))
    times.append(time.perf_counter() - start)
if ranks.rank() == 0:
    print(min(times))
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
    return subprocess.Popen(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"})


def measured(folder: Path, ranks: int, parallel: str) -> dict[str, Any]:
    """The middle step, and the peak memory of the largest process, of one training from its beginning."""
    keys = [f"system.devices={ranks}", f"system.parallel={parallel}", f"system.runs=runs-{ranks}-{parallel}"]
    danlu(folder, "--to", "encode", keys[-1]).wait()
    process, peak = danlu(folder, "--to", "pretrain", *keys), 0
    while process.poll() is None:
        peak = max([peak, *(_peak(pid) for pid in (process.pid, *_children(process.pid)))])
        time.sleep(0.05)
    log = next((folder / f"runs-{ranks}-{parallel}" / "store").glob("pretrain-*/metrics.jsonl")).read_text()
    steps = [entry["seconds"] for entry in map(json.loads, log.splitlines()) if "loss" in entry]
    return {"ranks": ranks, "parallel": parallel, "seconds": statistics.median(steps[1:]), "bytes": peak}


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


def summed(ranks: int) -> float:
    """Bytes per second that each of the processes sends while they sum."""
    from danlu.ranks import free_port

    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
              "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}  # fmt: skip
    started = [
        subprocess.Popen([sys.executable, "-c", SUM], env=os.environ | shared | {"RANK": str(rank)}, text=True,
                         stdout=subprocess.PIPE)
        for rank in range(ranks)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in started]
    return 2 * (ranks - 1) / ranks * 4 * 2**22 / float(said[0])


def forecast(folder: Path, row: dict[str, Any], alone: float, bandwidth: float) -> dict[str, Any]:
    """Seconds and bytes that the calculator gives: more processes than processors share them."""
    from danlu.cluster import Cluster, need, planned
    from danlu.graph import Life
    from danlu.recipe import load_recipe

    life = Life(load_recipe(folder / "recipe.toml", ["system.runs=runs-1-ddp"]))
    state = next(each for each in life.states() if each.node.name == "pretrain")
    net, plan, _ = planned(life, state)
    share = min(1.0, (os.cpu_count() or 1) / row["ranks"])
    cluster = Cluster(
        devices=row["ranks"], memory_gb=1000.0, tflops=plan.step_gflop / alone / 1e3 * share, utilisation=1.0,
        link_gb_s=bandwidth / 1e9, disk_gb_s=1.0, parallel=row["parallel"],
    )  # fmt: skip
    found = need(cluster, net, plan)
    step = found.computing + found.passing  # gloo passes nothing beside the computing of a processor
    return {"seconds_forecast": step, "bytes_forecast": found.memory, "passing_forecast": found.passing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4])
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = project(Path(temporary), options.steps)
        bandwidths = {ranks: summed(ranks) for ranks in options.ranks if ranks > 1}
        for ranks in options.ranks:
            for parallel in ("ddp", "fsdp") if ranks > 1 else ("ddp",):
                row = measured(folder, ranks, parallel)
                alone = rows[0]["seconds"] if rows else row["seconds"]
                row |= forecast(folder, row, alone, bandwidths.get(ranks, 1e9)) | {"sent": bandwidths.get(ranks, 0.0)}
                rows.append(row)
                print(_line(row), flush=True)
    results.keep("ranks", {"rows": rows})


def _line(row: dict[str, Any]) -> str:
    seconds, size = row["seconds_forecast"] / row["seconds"] - 1, row["bytes_forecast"] / row["bytes"] - 1
    return (
        f"{row['ranks']} {row['parallel']:5} step {row['seconds']:.3f} s, forecast {row['seconds_forecast']:.3f}"
        f" ({seconds:+.0%}), of it passing {row['passing_forecast']:.3f}   "
        f"peak {row['bytes'] / 1e6:,.0f} MB, forecast {row['bytes_forecast'] / 1e6:,.0f} ({size:+.0%})"
    )


if __name__ == "__main__":
    main()
