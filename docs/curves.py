"""Train the net of 512, 256 and 10 on two collections of digits, in NumPy alone, and keep both runs in the pages.

    python docs/curves.py FOLDER      FOLDER holds the four MNIST files

Writes docs/{en,zh}/explanation/digits-*.svg, and the table of each run below its marker in digits.md.
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from danlu.charts import Point, curve
from danlu.scratch.classify import accuracy, steps
from danlu.scratch.digits import Examples, bundled, mnist
from danlu.scratch.losses import cross_entropy
from danlu.scratch.mlp import MLP
from danlu.scratch.optim import Adam
from danlu.scratch.schedule import cosine
from danlu.scratch.tensor import Tensor

DOCS = Path(__file__).resolve().parent
MARKER = "<!-- {}: written by docs/curves.py -->\n"
WORDS = {
    "en": {
        "title": "Loss over steps",
        "steps": "steps",
        "held_out": "held-out",
        "start": "guessing",
        "head": "| epoch | training loss | held-out loss | held-out digits right | seconds |",
    },
    "zh": {
        "title": "损失随步数的变化",
        "steps": "步数",
        "held_out": "留出样本",
        "start": "随机猜测",
        "head": "| 轮 | 训练损失 | 留出损失 | 留出数字的准确率 | 秒 |",
    },
}
STYLE = """<style>
svg { --soft: #77716a; --line: #e4dfd8; --faint: #e2b59a; --fire: #c4481c; --cool: #2b6f8a; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  svg { --soft: #a39d95; --line: #3a3632; --faint: #6b4535; --fire: #ef7d4f; --cool: #6fb6d2; --paper: #111; }
}
text { font: 12.5px system-ui, sans-serif; fill: var(--soft); }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
path { fill: none; }
.grid { stroke: var(--line); }
.raw { stroke: var(--faint); opacity: .65; }
.train { stroke: var(--fire); stroke-width: 2; }
path.held { stroke: var(--cool); stroke-width: 1.5; }
circle.held { fill: var(--cool); stroke: var(--paper); }
.guess { stroke: var(--soft); stroke-dasharray: 3 4; }
</style>"""  # the page's colours are not there where an image stands alone


@dataclass
class Run:
    """The loss of every step; after each epoch the mean loss, that of the held-out digits, their accuracy, the time."""

    train: list[Point] = field(default_factory=list)
    epochs: list[tuple[int, float, float, float, float]] = field(default_factory=list)  # step, ...

    def table(self, head: str) -> str:
        lines = [head, "|---|---|---|---|---|"]
        for number, (_, loss, held, right, seconds) in enumerate(self.epochs, 1):
            lines.append(f"| {number} | {loss:.4f} | {held:.4f} | {right:.2%} | {seconds:.0f} |")
        return "\n".join(lines)

    def svg(self, words: dict[str, str]) -> str:
        held = [(float(step), loss) for step, _, loss, _, _ in self.epochs]
        drawn = curve(self.train, held, float(np.log(10)), labels=words)
        return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
            "</title>", f"</title>{STYLE}", 1
        )


def trained(train: Examples, test: Examples, epochs: int) -> Run:
    """The run of examples/digits.py, with everything noted down."""
    (x, y), rng, run = train, np.random.default_rng(1), Run()
    net = MLP((x.shape[1], 512, 256, 10), rng)
    net.cast(np.float32)
    optimizer = Adam(net.parameters().values())
    start = time.perf_counter()
    for number in range(epochs):
        for loss in steps(net, optimizer, x, y, 1e-3 * cosine(number, epochs), rng):
            run.train.append((float(len(run.train) + 1), loss))
        mean = float(np.mean([loss for _, loss in run.train[len(run.train) // (number + 1) * number :]]))
        seconds = time.perf_counter() - start
        held = float(cross_entropy(net(Tensor(test[0])), test[1]).data)
        run.epochs.append((len(run.train), mean, held, accuracy(net, *test), seconds))
    return run


def keep(name: str, run: Run) -> None:
    """The curve beside the pages, and the table in them, up to the next empty line but one."""
    for language, words in WORDS.items():
        folder = DOCS / language / "explanation"
        (folder / f"digits-{name}.svg").write_text(run.svg(words) + "\n", "utf-8")
        page, marker = folder / "digits.md", MARKER.format(name)
        before, _, after = page.read_text("utf-8").partition(marker)
        rest = after.lstrip("\n").partition("\n\n")[2] if after.lstrip("\n").startswith("|") else after.lstrip("\n")
        page.write_text(f"{before}{marker}\n{run.table(words['head'])}\n\n{rest}", "utf-8")


def main() -> None:
    for name, (train, test), epochs in (("bundled", bundled(), 20), ("mnist", mnist(sys.argv[1]), 5)):
        keep(name, run := trained(train, test, epochs))
        print(f"{name}: {run.epochs[-1][3]:.2%} in {run.epochs[-1][4]:.0f} s")


if __name__ == "__main__":
    main()
