"""Weights in 8 bits: a quarter of fp32's memory, so that decoding, which waits for memory, is faster.

One scale per row of a matrix, symmetric; what is computed with is bf16. A row of a batch never depends on its
neighbours, as it would if activations were quantized together.

Shapes: ... any leading axes · N their product (rows) · I inputs · O outputs · V vocabulary · D width
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.adapt.fold import merge
from danlu.adapt.graft import Grown
from danlu.nn.embed import Tokens
from danlu.nn.heads import Vocabulary
from danlu.nn.network import EncoderDecoder, Network

COMPUTE = torch.bfloat16
KERNEL_ROWS = 12  # torch's int8 kernel streams the weight once per few rows; beyond these widening it first is faster
KERNEL_MULTIPLE = 32  # the kernel reads past the end of rows of other lengths


class Int8Table(nn.Module):
    """A matrix as codes int8 (O, I) and scales (O,); a linear layer and an embedding read it in their own way."""

    codes: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        # Rounding the scale before the codes are made leaves no error of its own.
        scales = (weight.detach().float().abs().amax(1) / 127).clamp(min=1e-12).to(COMPUTE)
        codes = (weight.detach().float() / scales[:, None].float()).round().clamp(-127, 127)
        self.register_buffer("codes", codes.to(torch.int8))
        self.register_buffer("scales", scales)

    @property
    def weight(self) -> Tensor:
        """The matrix (O, I), widened."""
        return self.codes.to(COMPUTE) * self.scales[:, None]


class Int8Linear(Int8Table):
    """A frozen linear layer."""

    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.weight)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().to(COMPUTE))

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        y = product(x, self.codes, self.scales)
        return y if self.bias is None else y + self.bias


class Int8Embedding(Int8Table):
    """A frozen table of vectors, and the output layer tied to it."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__(embedding.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) -> (..., D)."""
        return self.codes[ids].to(COMPUTE) * self.scales[ids][..., None]


class TiedOutput(nn.Module):
    """Logits from an Int8Embedding; it owns no tensor, so that the state holds the table once."""

    def __init__(self, table: Int8Embedding) -> None:
        super().__init__()
        self._table = (table,)

    @property
    def weight(self) -> Tensor:
        """(V, D), widened."""
        return self._table[0].weight

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return product(hidden, self._table[0].codes, self._table[0].scales)


def quantize(network: Network) -> Network:
    """Every linear and the token table in int8, in place; vectors stay fp32, other tables become bf16."""
    merge(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and not isinstance(child, Grown):
                setattr(parent, name, Int8Linear(child))
    if isinstance(network.embed, Tokens) and network.embed.tokens is not None:
        _quantize_table(network, network.embed, Int8Embedding(network.embed.tokens))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim > 1:
            parameter.data = parameter.data.to(COMPUTE)
    return network


def _quantize_table(network: Network, embed: Tokens, table: Int8Embedding) -> None:
    """Let all that read the token table read `table`."""
    embed.tokens = table  # type: ignore[assignment]
    if isinstance(network, EncoderDecoder) and isinstance(network.encoder.embed, Tokens):
        network.encoder.embed.share(table)
    if isinstance(network.head, Vocabulary):
        network.head.tie(table)
        if network.head.output is None:
            network.head.output = TiedOutput(table)  # type: ignore[assignment]


def product(x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """x (..., I) · (codes · scales)ᵀ -> (..., O), through torch's int8 kernel where it is faster and safe."""
    rows = x.reshape(-1, x.shape[-1]).to(COMPUTE)
    fits = x.is_cpu and codes.shape[1] % KERNEL_MULTIPLE == 0 and not rows.requires_grad  # the kernel has no gradient
    if fits and len(rows) <= KERNEL_ROWS:
        y = torch.ops.aten._weight_int8pack_mm(rows.contiguous(), codes, scales)
    else:
        y = widened_product(rows, codes, scales)
    return y.view(*x.shape[:-1], -1)


def widened_product(rows: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """The same with plain operations: (N, I) -> (N, O). Codes up to 127 are exact in bf16."""
    return F.linear(rows, codes.to(COMPUTE)) * scales
