"""One training step, danlu beside its peers: same sizes, same tokens per step, AdamW with clipping on every side.

Each side lives in a process of its own and steps in turn (A B C A B C ...), so that none sees another's memory and a
busy moment of the machine falls on all. Medians, ratios to danlu in the same form, and peak memory go to results/.

    python benchmarks/training_step.py [--rounds 20] [--rows 16] [--sides danlu-gpt2,nanogpt,...] [--nanogpt FOLDER]

nanogpt needs a clone of https://github.com/karpathy/nanoGPT: its model.py is imported as it is, its optimizer and
clipping are those of its train.py. Sides that are not installed are left out, and said so.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

DEPTH, WIDTH, CONTEXT, VOCAB = 6, 384, 256, 8192
Step = Callable[[torch.Tensor], None]


# --- the sides: each makes a function that takes one step on ids (B, T + 1), and the number of its weights ---


def danlu(form: str, rows: int) -> tuple[Step, int]:
    """danlu's loop as the plan would run it."""
    from danlu import models, tasks
    from danlu.config import Train
    from danlu.models.architecture import build
    from danlu.randomness import generator
    from danlu.train import cost
    from danlu.train.loop import Training
    from danlu.train.plan import Plan, prepare

    net = build(models.preset(form, VOCAB, CONTEXT, DEPTH), generator(1, "init"))
    plan = Plan(depth=DEPTH, rows=rows, accumulate=1, context=CONTEXT, optimizer="adamw", lr=1e-3, weight_decay=0.1,
                precision=cost.faster_precision(), threads=torch.get_num_threads(), attention="written",
                steps=10**9)  # fmt: skip
    prepare(net, plan)
    task = tasks.load("language_modeling")(Processor())
    feed = Feed()
    events = Training(task, net.train(), Train(), plan, seed=1).events(feed, None)  # type: ignore[arg-type]

    def step(ids: torch.Tensor) -> None:
        feed.ids = ids
        next(events)

    return step, sum(p.numel() for p in net.parameters())


class Processor:
    """A vocabulary of which only the size matters."""

    vocab_size = VOCAB

    def token_bytes(self) -> list[int]:
        return [4] * VOCAB


class Feed:
    """A loader that hands out what it is given."""

    ids: torch.Tensor

    def train(self, step: int, micro: int, shape: Any) -> dict[str, torch.Tensor]:
        inputs, labels = self.ids[:, :-1].contiguous(), self.ids[:, 1:].contiguous()
        positions = torch.arange(CONTEXT).expand(inputs.shape).contiguous()
        return {
            "input_ids": inputs,
            "labels": labels,
            "position_ids": positions,
            "segment_ids": torch.ones_like(inputs),
        }


def transformers(form: str, rows: int) -> tuple[Step, int]:
    """transformers' model in a plain loop with bf16 autocast: what its Trainer does, without the Trainer's own time."""
    import transformers as hf

    if form == "gpt2":
        sizes = {"n_embd": WIDTH, "n_layer": DEPTH, "n_head": WIDTH // 64, "n_positions": CONTEXT}
        no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=VOCAB, **sizes, **no_dropout))
    else:
        from danlu import models

        core = models.preset("qwen3", VOCAB, CONTEXT, DEPTH).core
        model = hf.Qwen3ForCausalLM(
            hf.Qwen3Config(
                vocab_size=VOCAB, hidden_size=core.dim, intermediate_size=core.hidden, num_hidden_layers=core.layers,
                num_attention_heads=core.heads, num_key_value_heads=core.kv_heads, head_dim=core.head_dim,
                max_position_embeddings=CONTEXT, tie_word_embeddings=True,
            )
        )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, betas=(0.9, 0.95))

    def loss(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(input_ids=ids[:, :-1], labels=ids[:, :-1]).loss  # type: ignore[no-any-return]

    return _stepping(model.train(), optimizer, loss)


def nanogpt(folder: str, bf16: bool) -> tuple[Step, int]:
    """nanoGPT's GPT with the optimizer and the clipping of its train.py, as shipped (fp32 on a CPU) or under bf16."""
    sys.path.insert(0, folder)
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    sizes = {"block_size": CONTEXT, "vocab_size": VOCAB, "n_layer": DEPTH, "n_head": WIDTH // 64, "n_embd": WIDTH}
    model = GPT(GPTConfig(**sizes, dropout=0.0))
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu")

    def loss(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())[1]  # type: ignore[no-any-return]

    return _stepping(model.train(), optimizer, loss)


def _stepping(model: nn.Module, optimizer: Any, loss: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Step, int]:
    def step(ids: torch.Tensor) -> None:
        loss(ids).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, sum(p.numel() for p in model.parameters())


def sides(options: argparse.Namespace) -> dict[str, Callable[[], tuple[Step, int]]]:
    """What can be measured here, by name; those of one form have the same number of weights."""
    rows = options.rows
    found: dict[str, Callable[[], tuple[Step, int]]] = {
        "danlu-gpt2": lambda: danlu("gpt2", rows),
        "transformers-gpt2": lambda: transformers("gpt2", rows),
        "danlu-qwen3": lambda: danlu("qwen3", rows),
        "transformers-qwen3": lambda: transformers("qwen3", rows),
    }
    if options.nanogpt:
        found["nanogpt-gpt2"] = lambda: nanogpt(options.nanogpt, bf16=False)
        found["nanogpt-bf16-gpt2"] = lambda: nanogpt(options.nanogpt, bf16=True)
    wanted = options.sides.split(",") if options.sides else list(found)
    return {name: found[name] for name in wanted}


# --- one process a side ---


def work(name: str, options: argparse.Namespace) -> None:
    """Answer each line on stdin with the seconds of one step; at the end with weights and peak memory."""
    step, weights = sides(options)[name]()
    random = torch.Generator().manual_seed(0)
    for line in sys.stdin:
        if line.strip() == "end":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({"weights": weights, "peak_mb": round(peak)}), flush=True)
            return
        ids = torch.randint(VOCAB, (options.rows, CONTEXT + 1), generator=random)
        start = time.perf_counter()
        step(ids)
        print(time.perf_counter() - start, flush=True)


class Worker:
    """A side in its own process."""

    def __init__(self, name: str):
        command = [sys.executable, __file__, "--worker", name, *sys.argv[1:]]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, line: str) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        while answer := self.process.stdout.readline():
            try:
                return json.loads(answer)
            except ValueError:  # a peer that prints what it does
                continue
        raise RuntimeError("ended")


# --- the table ---


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Steps in turn, after three of each to warm up."""
    workers = {name: Worker(name) for name in sides(options)}
    times: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(-3, options.rounds):
        for name in list(workers):
            try:
                seconds = workers[name].ask("step")
            except RuntimeError:
                print(f"{name}: not measured, it does not run here", file=sys.stderr)
                del workers[name], times[name]
                continue
            if turn >= 0:
                times[name].append(seconds)
    ends = {name: worker.ask("end") for name, worker in workers.items()}
    return {name: _row(name, times, ends[name], options.rows) for name in workers}


def _row(name: str, times: dict[str, list[float]], end: dict[str, int], rows: int) -> dict[str, Any]:
    from danlu.train import cost

    ours = times.get(f"danlu-{name.rpartition('-')[2]}", times[name])
    middle, tokens = statistics.median(times[name]), rows * CONTEXT
    work = cost.flops_per_token(end["weights"], DEPTH, WIDTH, CONTEXT) * tokens
    return {
        "milliseconds": round(1000 * middle, 1),
        "tokens_per_second": round(tokens / middle),
        "share_of_bf16_peak": round(work / middle / cost.peak("bf16"), 3),
        "danlu_is_faster_by": round(statistics.median(b / a for a, b in zip(ours, times[name], strict=True)), 2),
        **end,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--sides", default="")
    parser.add_argument("--nanogpt", default="")
    parser.add_argument("--worker", default="")
    options = parser.parse_args()
    if options.worker:
        return work(options.worker, options)
    table = measured(options)
    result = {
        "what": f"training step, {DEPTH} x {WIDTH}, V {VOCAB}, T {CONTEXT}, {options.rows} rows, AdamW, clipped",
        "rounds": options.rounds, "torch": torch.__version__, "threads": torch.get_num_threads(), "sides": table,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    name = f"{time.strftime('%Y-%m-%d')}-{platform.machine()}-{torch.get_num_threads()}threads-training-step.json"
    (Path(__file__).parent / "results" / name).write_text(json.dumps(result, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
