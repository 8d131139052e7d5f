"""Where danlu's training step spends its time, by kinds of kernels: what it could be made faster by at most.

The step is that of training_step.py. The profiler slows a step by what it writes down: shares are what is meant.

    python benchmarks/kernels.py [--form gpt2] [--steps 5]
"""

import argparse
import contextlib
import statistics
import time
from collections import Counter
from typing import Any

import results
import torch
from peers import Sizes, Turns
from torch.profiler import ProfilerActivity, profile
from training_step import danlu

KINDS = {  # the first kind whose beginning a kernel's name has
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn", "onednn"),
    "attention": ("aten::_scaled_dot_product",),
    "compiled element-wise": ("graph", "cpp_fused", "CompiledFx", "## Call CompiledFx"),
    "copies and casts": ("aten::copy_", "aten::cat", "aten::_to_copy", "aten::clone", "aten::contiguous"),
    "softmax": ("aten::_softmax", "aten::_log_softmax", "aten::logsumexp"),
    "optimizer": ("aten::_fused_adamw_", "aten::_foreach"),
    "memory": ("aten::empty", "aten::fill_", "aten::zero_", "aten::resize_"),
}
WARM = 4


class Profiled(Turns):
    """Warm steps, timed ones, then profiled ones; the last ends the run by an exception of its own."""

    def __init__(self, sizes: Sizes, steps: int):
        super().__init__(sizes)
        self.steps, self.taken, self.seconds, self.at = steps, 0, [0.0] * 0, 0.0
        self.profiler = profile(activities=[ProfilerActivity.CPU])

    def ready(self, model: torch.nn.Module, products: int | None = None) -> None:
        pass

    def __call__(self) -> None:
        now, first = time.perf_counter(), WARM + self.steps
        if WARM < self.taken <= first:
            self.seconds.append(now - self.at)
        if self.taken == first:
            self.profiler.start()
        if self.taken == first + self.steps:
            self.profiler.stop()
            raise StopIteration
        self.taken, self.at = self.taken + 1, time.perf_counter()


def kind_of(name: str) -> str:
    """The kind of a kernel by its name."""
    return next((kind for kind, names in KINDS.items() if name.startswith(names)), "others")


def kernels(form: str, steps: int) -> dict[str, Any]:
    """Milliseconds of a step, plain and by kind under the profiler, and the kernels that take most."""
    turns = Profiled(Sizes(), steps)
    with contextlib.suppress(StopIteration):
        danlu(form, "adamw", turns.sizes, turns)
    spent, single = Counter[str](), Counter[str]()
    for event in turns.profiler.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total / 1000 / steps
        single[event.key] += event.self_cpu_time_total / 1000 / steps
    whole = sum(spent.values())
    return {
        "step_ms": round(statistics.median(turns.seconds) * 1000, 1), "profiled_ms": round(whole, 1),
        "share": {kind: round(ms / whole, 3) for kind, ms in spent.most_common()},
        "ms": {name: round(ms, 1) for name, ms in single.most_common(16)},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--form", default="gpt2", choices=["gpt2", "qwen3"])
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    found = kernels(options.form, options.steps)
    print(results.keep("kernels", {options.form: found}))
    print(found)


if __name__ == "__main__":
    main()
