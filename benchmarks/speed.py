"""One training step of the same Qwen3-form model: danlu beside transformers in a plain bf16-autocast loop.

Same parameters (6 layers, width 384, vocabulary 8,192), same tokens per step (16 rows of 256), AdamW with clipping on
both sides, steps taken in turn (A B A B ...) in one process; medians and their ratio go to benchmarks/results/.

    python benchmarks/speed.py [--steps 20] [--rows 16]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from danlu import models, tasks
from danlu.config import Train
from danlu.forecast import Synthetic
from danlu.models.architecture import build
from danlu.randomness import generator
from danlu.train import cost
from danlu.train.loop import Training
from danlu.train.plan import Plan, prepare

DEPTH, CONTEXT, VOCAB = 6, 256, 8192


class Processor:
    """A vocabulary of which only the size matters."""

    vocab_size = VOCAB

    def token_bytes(self) -> list[int]:
        return [4] * VOCAB


def ours(rows: int, loader: Synthetic) -> Callable[[], float]:
    """A function that takes one step of danlu's training and gives its seconds."""
    net = build(models.preset("qwen3", VOCAB, CONTEXT, DEPTH), generator(1, "init"))
    plan = Plan(depth=DEPTH, rows=rows, accumulate=1, context=CONTEXT, optimizer="adamw", lr=1e-3, weight_decay=0.1,
                precision=cost.faster_precision(), threads=torch.get_num_threads(), attention="written",
                steps=10**6)  # fmt: skip
    prepare(net, plan)
    task = tasks.load("language_modeling")(Processor())
    events = Training(task, net.train(), Train(), plan, seed=1).events(loader, None)  # type: ignore[arg-type]
    return lambda: next(events).seconds  # type: ignore[union-attr]


def theirs(rows: int, loader: Synthetic) -> Callable[[], float]:
    """The same step with transformers' model, torch's AdamW and autocast."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from danlu.data.loader import Shape

    net = build(models.preset("qwen3", VOCAB, CONTEXT, DEPTH), generator(1, "init"))
    core = net.core.config
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=core.dim, intermediate_size=core.hidden, num_hidden_layers=core.layers,
        num_attention_heads=core.heads, num_key_value_heads=core.kv_heads, head_dim=core.head_dim,
        max_position_embeddings=CONTEXT, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).train()
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in net.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, betas=(0.9, 0.95))

    def step() -> float:
        ids = loader.train(0, 0, Shape(rows, 1))["input_ids"]
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=16)
    options = parser.parse_args()
    loader = Synthetic(CONTEXT, VOCAB, 10**6)
    pair = {"danlu": ours(options.rows, loader), "transformers": theirs(options.rows, loader)}
    for step in pair.values():
        step(), step()
    times: dict[str, list[float]] = {name: [] for name in pair}
    for _ in range(options.steps):
        for name, step in pair.items():
            times[name].append(step())
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(b / a for a, b in zip(times["danlu"], times["transformers"], strict=True))
    tokens = options.rows * CONTEXT
    result = {
        "what": "training step, Qwen3 form, 6 x 384, V 8192, T 256, bf16", "rows": options.rows, "steps": options.steps,
        "milliseconds": {name: round(1000 * value, 1) for name, value in medians.items()},
        "tokens_per_second": {name: round(tokens / value) for name, value in medians.items()},
        "ratio_transformers_to_danlu": round(ratio, 3), "torch": torch.__version__, "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    name = f"{time.strftime('%Y-%m-%d')}-{platform.machine()}-{torch.get_num_threads()}threads-speed.json"
    (Path(__file__).parent / "results" / name).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
