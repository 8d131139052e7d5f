"""What `--plan` says against what comes: minutes and memory of whole lives, stage by stage, on data beside the project.

Each recipe is planned by one process and run by another; the memory is the largest sum over the run's processes.

    python benchmarks/forecast.py [--data ../shared/data] [shakespeare novels chats deep tuned spans]
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import results

DATA = Path(__file__).parents[2] / "shared" / "data"
COMMAND = [sys.executable, "-m", "danlu", "run", "recipe.toml"]
RECIPES = {
    "shakespeare": """
        task = "language_modeling"
        data = { path = "DATA/tinyshakespeare/input.txt", split = { valid = 0.05, test = 0.05 } }
        model = { depth = "auto", context = 256 }
        pretrain = { budget = "40s", sample = "First Citizen:" }
    """,
    "novels": """
        task = "language_modeling"
        data = { path = "DATA/zh_classic_novels", split = { valid = 0.05, test = 0.05 }, exclude = ["*.md"] }
        model = { depth = 4, context = 256 }
        pretrain = { budget = "40s" }
    """,
    "chats": """
        task = "language_modeling"
        data = { path = "DATA/instruct_demo/alpaca_en_demo.json" }
        model = { depth = "auto", context = 256 }
        pretrain = { budget = "25s", decay = 0.06 }
        finetune = { derive = "same_rows", epochs = 2.0 }
    """,
    "deep": """
        task = "language_modeling"
        data = { path = "DATA/tinyshakespeare/input.txt" }
        model = { depth = 6, context = 256 }
        pretrain = { steps = 16, optimizer = "adamw", precision = "fp32", batch_tokens = 4096, accumulate = 4 }
    """,
    "tuned": """
        task = "language_modeling"
        data = { path = "DATA/zh_classic_novels", exclude = ["*.md"] }
        model = { arch = "gpt2", depth = 5, context = 256 }
        pretrain = { tokens = "200k", precision = "bf16", dropout = 0.1, batch_tokens = 8192 }
        finetune = { data = "DATA/instruct_demo/alpaca_zh_demo.json", tune = "lora", epochs = 1.0 }
    """,
    "spans": """
        task = "span_denoising"
        data = { path = "DATA/tinyshakespeare/input.txt" }
        model = { depth = 3, context = 256 }
        pretrain = { steps = 40, precision = "fp32" }
    """,
}  # what is set small only shortens it


def compare(recipe: str, data: Path) -> dict[str, Any]:
    """Forecast and measured seconds and MB: {stage: {...}, "total": {...}}."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "recipe.toml").write_text(recipe.replace("DATA", data.resolve().as_posix()), "utf-8")
        planned = subprocess.run([*COMMAND, "--plan", "--json"], cwd=folder, capture_output=True, text=True, check=True)
        seconds, memory = run(Path(folder))
    table = {}
    for row in json.loads(planned.stdout):
        stage = row["stage"]
        table[stage] = {
            "seconds_forecast": round(60 * row["minutes"], 1), "seconds": round(seconds.get(stage, 0.0), 1),
            "mb_forecast": row["memory MB"], "mb": round(memory.get(stage, 0.0)),
        }  # fmt: skip
    return table


def run(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Run the recipe; the seconds and the most MB of each stage, and of the whole as "total"."""
    started = time.monotonic()
    process = subprocess.Popen(COMMAND, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory: dict[str, float] = {}
    watch = threading.Thread(target=_watch, args=(process, folder / "runs", memory))
    watch.start()
    if process.wait():
        raise RuntimeError(f"danlu run ended with {process.returncode}")
    seconds = {"total": time.monotonic() - started}
    watch.join()
    for path in (folder / "runs").rglob("lineage.json"):
        facts = json.loads(path.read_text("utf-8"))
        seconds[facts["node"]] = facts["made"]["seconds"]
    return seconds, memory


def _watch(process: "subprocess.Popen[bytes]", runs: Path, memory: dict[str, float]) -> None:
    """While a run lasts, its most MB by the stage whose folder is being built."""
    while process.poll() is None:
        held = sum(_resident(pid) for pid in _family(process.pid)) / 1e6
        building = [path.name.rpartition("-")[0] for path in runs.glob("*/*.partial")]
        for name in ("total", *building):
            memory[name] = max(memory.get(name, 0.0), held)
        time.sleep(0.02)


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for each in found:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in path.read_text().split()]
    return found


def _resident(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=DATA)
    options, words = parser.parse_known_args()  # `make bench` hands the same words to every script
    if not options.data.is_dir():
        print(f"left out: {options.data} is not there")
        return
    os.environ["DANLU_LANG"] = "en"
    for name in [word for word in words if word in RECIPES] or RECIPES:
        table = compare(RECIPES[name], options.data)
        print(name, json.dumps(table, indent=1), flush=True)
        results.keep("forecast", {name: table})


if __name__ == "__main__":
    main()
