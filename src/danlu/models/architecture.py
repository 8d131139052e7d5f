"""A network as plain values, and the network built from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from danlu.nn.config import TransformerConfig
from danlu.nn.dropout import use_generator
from danlu.nn.embed import Tokens, TokensConfig
from danlu.nn.heads import Vocabulary, VocabularyConfig
from danlu.nn.network import Network
from danlu.nn.norm import Norm
from danlu.nn.transformer import Transformer

EMBEDDING_STD = 0.02


@dataclass(frozen=True)
class Architecture:
    """All that decides the shape of a model's tensors and what is computed with them."""

    core: TransformerConfig
    embed: TokensConfig
    head: VocabularyConfig
    context: int  # tokens that it was made for


def check_sizes(sizes: Mapping[str, int], known: Sequence[str]) -> None:
    """Raise ValueError for a size that a form does not have."""
    if unknown := sorted(set(sizes) - set(known)):
        raise ValueError(f"{', '.join(unknown)} cannot be chosen; {', '.join(known)} can")


def build(architecture: Architecture, generator: torch.Generator) -> Network:
    """The network with its first weights, all drawn from `generator`; its dropout draws from a child of it."""
    network = empty(architecture)
    # Not `to_empty`: torch would take the shapes from meta tensors in Python, and load sympy for that (2 s).
    network._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
    initialise(network, generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    use_generator(network, torch.Generator().manual_seed(seed))
    return network


def empty(architecture: Architecture) -> Network:
    """The network without memory for its weights (meta tensors)."""
    with torch.device("meta"):
        embed = Tokens(architecture.embed, architecture.core.dim)
        core = Transformer(architecture.core)
        head = Vocabulary(architecture.head, architecture.core.dim, embed.tokens)
    return Network(embed, core, head)


@torch.no_grad()
def initialise(network: Network, generator: torch.Generator) -> None:
    """Tables normal with std 0.02; linears with std 1/sqrt(inputs), those that write to the residual stream smaller.

    The stream is a sum of 2 · layers terms, hence 1/sqrt(2 · layers) for each (GPT-2).
    """
    writers = 1 / math.sqrt(2 * network.core.config.layers)
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(0, EMBEDDING_STD, generator=generator)
        elif isinstance(module, nn.Linear):
            std = module.in_features**-0.5 * (writers if name.endswith((".o", ".down")) else 1.0)
            module.weight.normal_(0, std, generator=generator)
        elif isinstance(module, Norm):
            module.weight.fill_(0.0 if module.kind == "rms1" else 1.0)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
