"""One training step of the peers: their models and optimizers as they ship them, at the sizes of the comparison.

Every side is a function of (sizes, turns): it builds what it needs and takes one step per turn, for ever. Clones of
nanoGPT, nanochat and litgpt lie in one folder, which README.md names; nothing of theirs is copied here.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """The sizes that all sides share; `hidden` is that of the gated MLP of the Qwen3 form."""

    depth: int = 6
    width: int = 384
    hidden: int = 1024
    context: int = 256
    vocab: int = 8192
    rows: int = 16

    @property
    def heads(self) -> int:
        return self.width // 64


class Turns:
    """The pace of a side: `ready` says what it is; each call ends a step and waits for the word to begin another."""

    def __init__(self, sizes: Sizes):
        self.sizes, self.random = sizes, torch.Generator().manual_seed(0)

    def ready(self, model: nn.Module, products: int | None = None) -> None:
        """Tell the number of weights, and of those in matrix products (tables are only looked up)."""
        raise NotImplementedError

    def __call__(self) -> None:
        raise NotImplementedError

    def ids(self) -> Tensor:
        """Random tokens (B, T + 1), every row one document."""
        sizes = self.sizes
        return torch.randint(sizes.vocab, (sizes.rows, sizes.context + 1), generator=self.random)


def products(model: nn.Module, sizes: Sizes) -> int:
    """Weights in matrix products where the output is tied to the embedding: all but a table of positions."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    return sum(p.numel() for p in matrices if p.shape != (sizes.context, sizes.width))


def _stepping(turns: Turns, model: nn.Module, optimizer: Any, loss: Loss, clip: float = 1.0) -> None:
    """The plain loop: forward, backward, clip, update."""
    while True:
        turns()
        loss(turns.ids()).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


# --- nanoGPT -----------------------------------------------------------------------------------------


def nanogpt(folder: Path, bf16: bool, sizes: Sizes, turns: Turns) -> None:
    """nanoGPT's GPT with the optimizer and the clipping of its train.py: fp32 on a CPU as shipped, or under bf16."""
    sys.path.insert(0, str(folder / "nanoGPT"))
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    shape = {"n_layer": sizes.depth, "n_head": sizes.heads, "n_embd": sizes.width}
    model = GPT(GPTConfig(block_size=sizes.context, vocab_size=sizes.vocab, dropout=0.0, **shape)).train()
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu")

    def loss(ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())[1]  # type: ignore[no-any-return]

    turns.ready(model, products(model, sizes))
    _stepping(turns, model, optimizer, loss)


# --- nanochat ----------------------------------------------------------------------------------------


def nanochat(folder: Path, sizes: Sizes, turns: Turns) -> None:
    """nanochat's GPT, compiled as its base_train does, with its own Muon and AdamW, which clip nothing.

    Another architecture: ReLU squared, no weights in the norms, untied output, tables of value embeddings.
    """
    import os

    os.environ["NANOCHAT_DTYPE"] = "bfloat16"  # on a CPU it would choose fp32
    sys.path.insert(0, str(folder / "nanochat"))
    from nanochat.gpt import GPT, GPTConfig  # type: ignore[import-not-found]

    shape = {"n_layer": sizes.depth, "n_head": sizes.heads, "n_kv_head": sizes.heads, "n_embd": sizes.width}
    model = GPT(GPTConfig(sequence_len=sizes.context, vocab_size=sizes.vocab, window_pattern="L", **shape))
    model.init_weights()
    optimizer = model.setup_optimizer()
    turns.ready(model, model.num_matmul_params())
    compiled = torch.compile(model, dynamic=False)
    loss: Loss = lambda ids: compiled(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())  # noqa: E731
    _stepping(turns, model, optimizer, loss, clip=0.0)


# --- LitGPT ------------------------------------------------------------------------------------------


def litgpt(folder: Path, form: str, sizes: Sizes, turns: Turns) -> None:
    """LitGPT's GPT as its pretrain sets it up: Fabric in bf16-mixed, compiled, AdamW, clipped by Fabric, tied."""
    sys.path.insert(0, str(folder / "litgpt"))
    import lightning
    from litgpt import GPT, Config  # type: ignore[import-not-found]
    from litgpt.utils import chunked_cross_entropy  # type: ignore[import-not-found]

    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model = GPT(Config(**_litgpt_form(form, sizes))).train()
    model.transformer.wte.weight = model.lm_head.weight  # train.tie_embeddings
    turns.ready(model, products(model, sizes))
    compiled = fabric.setup(torch.compile(model))
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.95), weight_decay=0.1))
    while True:
        turns()
        ids = turns.ids()
        fabric.backward(chunked_cross_entropy(compiled(ids[:, :-1].contiguous()), ids[:, 1:].contiguous()))
        fabric.clip_gradients(compiled, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()


def _litgpt_form(form: str, sizes: Sizes) -> dict[str, Any]:
    """GPT-2's form with rotary in place of its table of positions, which LitGPT does not have; or Qwen3's."""
    shape: dict[str, Any] = {
        "n_layer": sizes.depth, "n_head": sizes.heads, "n_embd": sizes.width, "block_size": sizes.context,
        "vocab_size": sizes.vocab, "padded_vocab_size": sizes.vocab, "parallel_residual": False,
    }  # fmt: skip
    if form == "gpt2":
        return shape | {"bias": True, "gelu_approximate": "tanh", "intermediate_size": 4 * sizes.width}
    return shape | {
        "norm_class_name": "RMSNorm", "norm_qk": True, "rotary_percentage": 1.0, "rope_base": 1_000_000,
        "bias": False, "mlp_class_name": "LLaMAMLP", "intermediate_size": sizes.hidden,
    }  # fmt: skip


# --- transformers ------------------------------------------------------------------------------------


def _transformers_model(form: str, sizes: Sizes) -> nn.Module:
    import transformers as hf

    if form == "gpt2":
        shape = {"n_embd": sizes.width, "n_layer": sizes.depth, "n_head": sizes.heads, "n_positions": sizes.context}
        no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=sizes.vocab, **shape, **no_dropout))
    return hf.Qwen3ForCausalLM(
        hf.Qwen3Config(
            vocab_size=sizes.vocab, hidden_size=sizes.width, intermediate_size=sizes.hidden,
            num_hidden_layers=sizes.depth, num_attention_heads=sizes.heads, num_key_value_heads=sizes.heads,
            head_dim=64, max_position_embeddings=sizes.context, tie_word_embeddings=True,
        )
    )  # fmt: skip


def transformers_loop(form: str, sizes: Sizes, turns: Turns) -> None:
    """transformers' model in a plain loop with bf16 autocast: what its Trainer does, without the Trainer's own time."""
    model: Any = _transformers_model(form, sizes).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, betas=(0.9, 0.95))

    def loss(ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(input_ids=ids[:, :-1], labels=ids[:, :-1]).loss  # type: ignore[no-any-return]

    turns.ready(model, products(model, sizes))
    _stepping(turns, model, optimizer, loss)


def trainer(form: str, sizes: Sizes, turns: Turns) -> None:
    """transformers' Trainer in bf16, all else its defaults (AdamW, clipped at 1); saving switched off."""
    import transformers as hf

    model = _transformers_model(form, sizes)
    turns.ready(model, products(model, sizes))

    class Pace(hf.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            turns()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns()

    with tempfile.TemporaryDirectory() as room:
        told = hf.TrainingArguments(
            room, per_device_train_batch_size=sizes.rows, bf16=True, use_cpu=True, max_steps=10**6,
            save_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        hf.Trainer(model, told, train_dataset=_Rows(turns), callbacks=[Pace()]).train()


class _Rows(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Random rows without end, each one document."""

    def __init__(self, turns: Turns):
        self.turns = turns

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            for row in self.turns.ids()[:, :-1]:
                yield {"input_ids": row, "labels": row}
