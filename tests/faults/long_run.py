"""One long real run, killed and resumed again and again beside its uninterrupted twin, each on a core of its own.

Chinese and English text, a model of `--parameters` million weights, `--minutes` of training on one thread. The text is
prepared once; both lives begin with copies of it and with one plan, that of the twin that nobody kills. The other is
killed with SIGKILL at `--kills` moments, spread over its steps, each at random in its share, and started again by the
same command. At the end weights and logs must be equal bit by bit. `--out` keeps the curve (curve.jsonl), what was said
at each evaluation (samples.txt), the figures and samples of the evaluation, and report.json.

    python -m tests.faults.long_run --minutes 60 --kills 20 --parameters 20 --out DIR [--data ../shared/data]
"""

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from danlu import files
from danlu.randomness import stream
from danlu.train.plan import PLAN, Plan
from danlu.train.session import METRICS
from tests.faults.cold import finish, log, said, start

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ("zh_classic_novels/*.txt", "tinyshakespeare/*.txt", "web_text_samples/wiki_demo.txt")
RECIPE = """
task = "language_modeling"

[data]
path = {texts}

[tokenizer]
vocab_size = 8192

[model]
depth = {depth}

[train]
budget = "{seconds}s"
save_every = {save_every}
sample = "却说宝玉"

[system]
threads = 1
"""


@dataclass
class Report:
    parameters: int = 0
    steps: int = 0
    tokens: int = 0
    kills: list[int] = field(default_factory=list)  # the step that was last logged at each
    minutes: float = 0.0
    weights: dict[str, str] = field(default_factory=dict)
    equal: bool = False
    differences: list[str] = field(default_factory=list)


def depth_of(parameters: float, vocabulary: int = 8192) -> int:
    """The least depth of at least so many weights: 12 matrices of (64 depth)² in a layer, and the vocabulary."""
    return next(
        depth for depth in range(1, 60) if 12 * depth * (64 * depth) ** 2 + vocabulary * 64 * depth > parameters
    )


def prepared(room: Path, texts: list[str], asked: argparse.Namespace) -> tuple[Path, Path]:
    """The recipes of both lives, their text prepared and encoded."""
    first = room / "straight" / "recipe.toml"
    first.parent.mkdir(parents=True)
    depth, seconds = depth_of(asked.parameters * 1e6), round(asked.minutes * 60)
    first.write_text(RECIPE.format(texts=json.dumps(texts), depth=depth, seconds=seconds, save_every=asked.save_every))
    with start(first, "--to", "encode") as process:
        assert process.wait() == 0, said(first)
    shutil.copytree(first.parent, room / "killed")
    return first, room / "killed" / "recipe.toml"


def planned(recipe: Path, process: subprocess.Popen[bytes]) -> Path:
    """The folder of the training once its plan is made."""
    while True:
        assert process.poll() is None, said(recipe)
        if found := list(recipe.parent.glob(f"runs/store/pretrain-*.partial/{PLAN}")):
            return found[0].parent
        time.sleep(0.2)


def pinned(process: subprocess.Popen[bytes], core: int) -> subprocess.Popen[bytes]:
    """The process on one core, where this system lets us choose."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(process.pid, {cores[core % len(cores)]})
    return process


def last_step(log: Path) -> int:
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    return max((int(line.split('"step": ')[1].split(",")[0]) for line in lines[-3:] if '"step": ' in line), default=0)


def moments(steps: int, kills: int, random: np.random.Generator) -> Iterator[tuple[int, float]]:
    """A step to wait for and the seconds to wait beyond it, for each kill."""
    for number in range(kills):
        yield int((number + random.random()) / kills * steps), 3 * random.random()


def killed(recipe: Path, folder: Path, at: tuple[int, float]) -> int | None:
    """Start the command and kill it when it has come so far; the last step it logged, None where it had ended."""
    process, (step, more) = pinned(start(recipe), 1), at
    while process.poll() is None and last_step(folder / METRICS) < step:
        time.sleep(0.2)
    time.sleep(more)
    process.kill()
    return last_step(folder / METRICS) if process.wait() else None


def lived(room: Path, texts: list[str], asked: argparse.Namespace) -> Report:
    """Both lives, side by side; what they have in common."""
    straight, other = prepared(room, texts, asked)
    report, began = Report(), time.monotonic()
    undisturbed = pinned(start(straight), 0)
    folder = planned(straight, undisturbed)
    twin = other.parent / folder.relative_to(straight.parent)
    twin.mkdir()
    shutil.copy(folder / PLAN, twin)
    plan = Plan.read(folder)
    assert plan is not None
    for at in moments(plan.steps, asked.kills, stream(asked.seed, "long")):
        if (reached := killed(other, twin, at)) is not None:
            report.kills.append(reached)
    finish(other)
    assert undisturbed.wait() == 0, said(straight)
    report.minutes = round((time.monotonic() - began) / 60, 1)
    compare(straight, other, report)
    keep(straight, Path(asked.out), report)
    return report


def compare(straight: Path, other: Path, report: Report) -> None:
    one, two = (next(each.parent.glob("runs/store/pretrain-*")) for each in (straight, other))
    tensors = [files.read_tensors(each / "model.safetensors") for each in (one, two)]
    report.differences += [n for n in tensors[0] if not np.array_equal(_bits(tensors[0][n]), _bits(tensors[1][n]))]
    report.differences += ["log"] * (log(one / METRICS) != log(two / METRICS)) + ["folders"] * (one.name != two.name)
    figures = [next(each.parent.glob("runs/store/evaluate-*/metrics.json")) for each in (straight, other)]
    report.differences += ["figures"] * (figures[0].read_bytes() != figures[1].read_bytes())
    report.weights = {each.parents[2].name: files.sha256(each / "model.safetensors") for each in (one, two)}
    facts = files.read_json(one / "metrics.json")
    report.parameters, report.steps, report.tokens = facts["parameters"], facts["steps"], facts["tokens"]
    report.equal = not report.differences


def _bits(tensor: Any) -> Any:
    return files.tensor_bytes(tensor)


def keep(recipe: Path, out: Path, report: Report) -> None:
    """Curve, samples, figures and the report."""
    out.mkdir(parents=True, exist_ok=True)
    pretrain, evaluate = (next(recipe.parent.glob(f"runs/store/{stage}-*")) for stage in ("pretrain", "evaluate"))
    shutil.copy(pretrain / METRICS, out / "curve.jsonl")
    shutil.copy(pretrain / PLAN, out)
    for name in ("metrics.json", "samples.json"):
        shutil.copy(evaluate / name, out)
    shutil.copy(recipe.parent / "run.log", out / "samples.txt")
    (out / "report.json").write_text(json.dumps(vars(report), indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--parameters", type=float, default=20, help="millions")
    parser.add_argument("--save-every", type=int, default=25, help="steps")
    parser.add_argument("--out", required=True)
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    texts = [str(Path(asked.data).resolve() / pattern) for pattern in TEXTS]
    room = Path(asked.out).resolve() / "lives"
    report = lived(room, texts, asked)
    print(json.dumps(vars(report)))
    shutil.rmtree(room)
    raise SystemExit(0 if report.equal else 1)


if __name__ == "__main__":
    main()
