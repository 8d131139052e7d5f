"""Does it help to paint hidden patches first, where few pictures have labels? A small ViT sees 16,000 pictures of
CIFAR-10 without labels (MAE, 2111.06377), then learns the classes of a tenth of them; beside it the same ViT that saw
none.

Both ways share one recipe, one shape and the same labelled pictures, drawn anew for each seed: they differ in the steps
of painting alone (1 for the one that saw none). Hidden patches are painted once, for all seeds. Both are tuned at one
rate, which is given (--rate).

    python benchmarks/few_labels.py [--data ../shared/data] [--seeds 3] [--share 0.1] [--epochs 50]
"""

import argparse
import json
import random
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import results
from pretraining import compared

DATA = Path(__file__).parents[2] / "shared" / "data" / "cifar10_jpg"
RECIPE = """
task = "masked_image_modeling"

[data]
path = "{data}/train_16k.tar.xz"
split = {{ valid = 0.02, test = 0.0 }}

[model]
arch = "vit"
depth = 6
width = 128
patch = 4

[options]
crop = 4
flip = true

[train]
batch_tokens = 64

[pretrain]
{length}

[finetune]
task = "image_classification"
options = {{ crop = 4, flip = true }}
data = "few-{seed}"
test = "{data}/test.tar.xz"
split = {{ valid = 0.1, test = 0.0 }}
epochs = {tuning}
lr = {rate}
"""
WAYS = {"no picture seen": False, "painted first": True}


def drawn(archive: Path, folder: Path, share: float, seed: int) -> None:
    """Unpack a share of the pictures of each class of an archive <split>/<class>/<picture>."""
    with tarfile.open(archive) as tar:
        kinds: dict[str, list[tarfile.TarInfo]] = {}
        for member in filter(tarfile.TarInfo.isfile, tar):
            kinds.setdefault(Path(member.name).parent.name, []).append(member)
        for kind, members in sorted(kinds.items()):
            few = random.Random(f"{seed} {kind}").sample(members, round(share * len(members)))
            tar.extractall(folder, few, filter="data")


def accuracy(room: Path, way: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Of the tuned model on the test pictures, and the seconds of both trainings."""
    few = room / f"few-{seed}"
    if not few.exists():
        drawn(options.data / "train_16k.tar.xz", few, options.share, seed)
    told = {"seed": seed, "data": options.data.resolve().as_posix(), "tuning": options.tuning, "rate": options.rate}
    told["length"] = f"epochs = {options.epochs}" if WAYS[way] else "steps = 1\nlr = 1e-9"
    (room / "recipe.toml").write_text(RECIPE.format(**told), "utf-8")
    subprocess.run([sys.executable, "-m", "danlu", "run", "recipe.toml", "-q", *options.set], cwd=room, check=True)
    runs = [json.loads(path.read_text("utf-8")) for path in (room / "runs").glob("*/run.json")]
    last = max(runs, key=lambda run: run["number"])
    folders = {stage: room / "runs" / "store" / name for stage, name in last["stages"].items()}
    figures = json.loads((folders["evaluate"] / "metrics.json").read_text("utf-8"))
    taken = {stage: _seconds(folders[stage] / "metrics.jsonl") for stage in ("pretrain", "finetune")}
    found = figures["models"] | figures["answers"]
    return {"accuracy": found["tuned"]["accuracy"]} | taken


def _seconds(log: Path) -> float:
    return round(sum(json.loads(line).get("seconds", 0.0) for line in log.read_text("utf-8").splitlines()), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.1, help="of the pictures whose labels are learned")
    parser.add_argument("--epochs", type=float, default=50.0, help="times over all pictures, without labels")
    parser.add_argument("--tuning", type=float, default=60.0, help="times over those with labels")
    parser.add_argument("--rate", type=float, default=1e-3, help="at which the classes are learned")
    parser.add_argument("--set", nargs="*", default=[], help="keys of the recipe, as on danlu's command line")
    options = parser.parse_args()
    share = f"CIFAR-10, {options.share:.0%} of 16,000 pictures"
    with tempfile.TemporaryDirectory() as room:
        table = compared(share, WAYS, options.seeds, lambda way, seed: accuracy(Path(room), way, seed, options))
    print(results.keep("few labels", table))


if __name__ == "__main__":
    main()
