"""An ELECTRA and its generator (2003.10555): one network in training, two models after.

Its architecture has a joint head, over words for the generator and over each token for what stays, and the
generator's stack as `encoder`. A folder of what stays holds the other's in a folder of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from danlu.models import encoder
from danlu.models.architecture import Architecture, Side
from danlu.models.electra import REPLACED
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import JointConfig

FOLDER = "generator"
_TABLE = "embed.tokens.weight"  # which both read
_PLACES = {"encoder.embed.": "embed.", "encoder.core.": "core.", "words.": "head."}  # in training, and as a model


def opened(architecture: Architecture, share: float) -> Architecture:
    """An architecture of ELECTRA's form with a generator of a share of its width beside it (section 3.2)."""
    core, embed = architecture.core, architecture.tokens
    heads = max(round(core.heads * share), 1)
    dim, width = heads * core.head_dim, embed.width or core.dim
    smaller = replace(core, dim=dim, heads=heads, kv_heads=heads, hidden=core.hidden * dim // core.dim)
    words = replace(encoder.MASKED, transform=core.mlp, norm_eps=core.norm_eps)
    return joined_form(architecture, Architecture(smaller, replace(embed, width=width), words, architecture.context))


def joined_form(stays: Architecture, generator: Architecture) -> Architecture:
    """Two models as the contest that they are trained in."""
    side = Side(generator.core, replace(generator.tokens, width=generator.tokens.width or generator.core.dim))
    head = generator.head
    return replace(stays, head=JointConfig(head, REPLACED), encoder=side)  # type: ignore[arg-type]


def parts(architecture: Architecture) -> tuple[Architecture, Architecture]:
    """The model that stays, and its generator."""
    head, side = architecture.head, architecture.encoder
    assert isinstance(head, JointConfig) and side is not None and isinstance(side.embed, TokensConfig)
    width = 0 if side.embed.width == side.core.dim else side.embed.width
    words = Architecture(side.core, replace(side.embed, width=width), head.vocabulary, architecture.context)
    return replace(architecture, head=head.label, encoder=None), words


def alone(architecture: Architecture) -> Architecture:
    """The architecture without a generator."""
    contest = isinstance(architecture.head, JointConfig) and architecture.encoder is not None
    return parts(architecture)[0] if contest else architecture


def parted(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a contest as those of its two models."""
    generator = {_TABLE: state[_TABLE]}
    for theirs, ours in _PLACES.items():
        generator |= {name.replace(theirs, ours, 1): t for name, t in state.items() if name.startswith(theirs)}
    return {name: t for name, t in state.items() if not name.startswith(tuple(_PLACES))}, generator


def joined(stays: Mapping[str, Tensor], generator: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of two models as those of their contest."""
    state = dict(stays)
    for theirs, ours in _PLACES.items():
        named = {name: t for name, t in generator.items() if name.startswith(ours) and name != _TABLE}
        state |= {name.replace(ours, theirs, 1): tensor for name, tensor in named.items()}
    return state
