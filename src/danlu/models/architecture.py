"""A network as plain values, and the network built from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from danlu.errors import UserError
from danlu.nn.adversarial import AdversarialConfig, Discriminator, Generator
from danlu.nn.config import TransformerConfig
from danlu.nn.convolutions import Convolutions, ConvolutionsConfig, GroupNorm
from danlu.nn.denoiser import Denoiser, DenoiserConfig
from danlu.nn.dropout import use_generator
from danlu.nn.embed import Tokens, TokensConfig
from danlu.nn.heads import (
    FIRST_SHARPNESS,
    HeadConfig,
    Joint,
    JointConfig,
    Label,
    LabelConfig,
    Pair,
    PairConfig,
    Vocabulary,
    VocabularyConfig,
)
from danlu.nn.making import Adversarial, Denoising
from danlu.nn.network import (
    Contest,
    Detection,
    EncoderDecoder,
    Network,
    Pictures,
    Reconstruction,
    Records,
    Stack,
    Towers,
)
from danlu.nn.norm import Norm
from danlu.nn.painting import Pixels, PixelsConfig, grid
from danlu.nn.phrases import Phrases, PhrasesConfig
from danlu.nn.queries import Queries, QueriesConfig
from danlu.nn.stems import Cells, CellsConfig, Frames, FramesConfig, Patches, PatchesConfig, waves
from danlu.nn.transformer import Transformer
from danlu.nn.unet import UNet, UNetConfig

EMBEDDING_STD = 0.02
ADVERSARIAL_STD = 0.02  # of all that a DCGAN begins with (1511.06434, section 4)
PHRASES_STD = 0.25  # no norm follows (1408.5882)
QUERIES_STD = 1.0  # what tells them apart is added to what each layer finds, which is about as large


@dataclass(frozen=True)
class Architecture:
    """All that decides the shape of a model's tensors and what is computed with them."""

    core: TransformerConfig
    embed: TokensConfig | PatchesConfig | CellsConfig | ConvolutionsConfig | DenoiserConfig | AdversarialConfig
    head: HeadConfig
    context: int  # tokens that it was made for
    # What the core, then a decoder, attends to; where the head is a pair, what it is compared with; where it is joint,
    # the generator that fills in the tokens which the core is to find out.
    encoder: Side | None = None

    @property
    def depth(self) -> int:
        """The dial that its family was made by."""
        return int(getattr(self.embed, "depth", self.core.layers))

    @property
    def tokens(self) -> TokensConfig:
        """The embedding of a model that reads text."""
        assert isinstance(self.embed, TokensConfig)
        return self.embed

    def seeing(self, sizes: Mapping[str, int]) -> Architecture:
        """The same for pictures of another size, as their processor tells it; what sees none stays as it is.

        Raises:
            UserError: E350, they are too small, or its weights or its way are those of one size.
        """
        embed, image = self.embed, sizes.get("image", 0)
        if isinstance(embed, TokensConfig | CellsConfig) or image in (0, embed.image):
            return self
        if not self.sees(image):
            raise UserError("E350", found=image, made=embed.image, least=self._least)
        seen, head = replace(embed, image=image), self.head
        if isinstance(head, PixelsConfig) and isinstance(seen, PatchesConfig):
            head = replace(head, patches=seen.count - seen.tokens)
        return replace(self, embed=seen, head=head, context=getattr(seen, "count", self.context))

    def sees(self, image: int) -> bool:
        """Whether pictures of so many pixels on each side could be seen with the same weights."""
        free = type(self.embed) is ConvolutionsConfig or getattr(self.embed, "places", "none") == "learned"
        return free and image >= self._least

    @property
    def _least(self) -> int:
        """Pixels on each side of the smallest pictures that leave one place."""
        if isinstance(self.embed, PatchesConfig):
            return self.embed.patch
        return int(getattr(self.embed, "stem", 1) * 2 ** (getattr(self.embed, "stages", 1) - 1))

    def with_vocabulary(self, size: int) -> Architecture:
        """The same for so many tokens, whoever reads them."""
        side = self.encoder
        if side and isinstance(side.embed, TokensConfig):
            side = replace(side, embed=replace(side.embed, vocab=size))
        return replace(self, embed=replace(self.tokens, vocab=size), encoder=side)


@dataclass(frozen=True)
class Side:
    """A second stack; where both read tokens, they read them from one table."""

    core: TransformerConfig
    embed: TokensConfig | PatchesConfig | FramesConfig


def computed(architecture: Architecture) -> Architecture:
    """Without what is of training alone, and every layer's window written out: equal where the same is computed."""
    side = architecture.encoder
    return replace(
        architecture,
        core=_plain(architecture.core),
        head=_without_dropout(architecture.head),
        encoder=side and replace(side, core=_plain(side.core)),
    )


def _plain(core: TransformerConfig) -> TransformerConfig:
    return replace(core, window=core.windows or (0,), dropout=0.0, attention_dropout=0.0)


def _without_dropout(head: HeadConfig) -> HeadConfig:
    if isinstance(head, JointConfig):
        return replace(head, label=replace(head.label, dropout=0.0))
    return replace(head, dropout=0.0) if isinstance(head, LabelConfig) else head


def check_sizes(sizes: Mapping[str, int], known: Sequence[str]) -> None:
    """Raise ValueError for a size that a form does not have."""
    if unknown := sorted(set(sizes) - set(known)):
        raise ValueError(f"{', '.join(unknown)} cannot be chosen; {', '.join(known)} can")


def build(architecture: Architecture, generator: torch.Generator) -> Network:
    """The network with its first weights, all drawn from `generator`; its dropout draws from a child of it."""
    network = unfilled(architecture, torch.Generator())
    initialise(network, generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    use_generator(network, torch.Generator().manual_seed(seed))
    return network


def unfilled(architecture: Architecture, generator: torch.Generator) -> Network:
    """The network with room for its weights, which are still to be given it; its dropout draws from `generator`."""
    network = empty(architecture)
    # Not `to_empty`: torch would take the shapes from meta tensors in Python, and load sympy for that (2 s).
    network._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
    use_generator(network, generator)
    return network


def empty(architecture: Architecture) -> Network:
    """The network without memory for its weights (meta tensors)."""
    with torch.device("meta"):
        core, dim = Transformer(architecture.core), architecture.core.dim
        if isinstance(architecture.embed, CellsConfig):
            assert isinstance(architecture.head, LabelConfig)
            return Records(Cells(architecture.embed, dim), core, Label(architecture.head, dim))
        if isinstance(architecture.head, PixelsConfig):
            assert isinstance(architecture.embed, PatchesConfig)
            return Reconstruction(Patches(architecture.embed, dim), core, Pixels(architecture.head, dim))
        if isinstance(architecture.head, QueriesConfig):
            assert isinstance(architecture.embed, ConvolutionsConfig)
            return Detection(Convolutions(architecture.embed), core, Queries(architecture.head, dim))
        if isinstance(architecture.embed, ConvolutionsConfig | PatchesConfig):
            assert isinstance(architecture.head, LabelConfig)
            config = architecture.embed
            seen = _seen(config, dim)
            return Pictures(seen, core, Label(architecture.head, dim))  # type: ignore[arg-type]
        if isinstance(architecture.embed, DenoiserConfig | AdversarialConfig):
            return _making(architecture.embed, core, architecture.head)
        embed = _embedding(architecture.embed, dim)
        if architecture.encoder is None:
            assert not isinstance(embed, Frames)
            return Network(embed, core, _head(architecture.head, dim, embed))
        side = architecture.encoder
        assert isinstance(embed, Tokens) and embed.tokens is not None
        stack = Stack(_embedding(side.embed, side.core.dim, embed.tokens), Transformer(side.core))
        if isinstance(architecture.head, JointConfig):
            words = Vocabulary(architecture.head.vocabulary, side.core.dim, embed.tokens)
            return Contest(embed, core, Label(architecture.head.label, dim), stack, words)
        if isinstance(architecture.head, PairConfig):
            return Towers(embed, core, Pair(architecture.head, dim, side.core.dim), stack)
        return EncoderDecoder(embed, core, _head(architecture.head, dim, embed), stack)


def _seen(config: ConvolutionsConfig | PatchesConfig, dim: int) -> Convolutions | Patches:
    if isinstance(config, UNetConfig):
        return UNet(config)
    return Convolutions(config) if isinstance(config, ConvolutionsConfig) else Patches(config, dim)


def _making(config: DenoiserConfig | AdversarialConfig, core: Transformer, head: HeadConfig) -> Denoising | Adversarial:
    """A network that makes pictures: it has neither stack nor head."""
    assert isinstance(head, LabelConfig)
    none, dropout = Label(head, config.dim), core.config.dropout
    if isinstance(config, DenoiserConfig):
        return Denoising(Denoiser(config, dropout), core, none)  # type: ignore[arg-type]
    return Adversarial(config, core, none, Generator(config), Discriminator(config, dropout))


def _embedding(
    config: TokensConfig | PatchesConfig | FramesConfig, dim: int, shared: nn.Embedding | None = None
) -> Tokens | Patches | Frames:
    if isinstance(config, PhrasesConfig):
        return Phrases(config)
    if isinstance(config, TokensConfig):
        return Tokens(config, dim, shared)
    return Patches(config, dim) if isinstance(config, PatchesConfig) else Frames(config, dim)


def _head(config: HeadConfig, dim: int, embed: nn.Module) -> Vocabulary | Label | Joint:
    if isinstance(config, LabelConfig):
        return Label(config, dim)
    assert isinstance(embed, Tokens) and embed.tokens is not None
    assert isinstance(config, VocabularyConfig | JointConfig)
    return (
        Joint(config, dim, embed.tokens) if isinstance(config, JointConfig) else Vocabulary(config, dim, embed.tokens)
    )


def _table_std(network: Network) -> float:
    if isinstance(network, Records):
        return float(network.embed.config.fields**-0.5)
    if isinstance(network, Detection):
        return QUERIES_STD
    return PHRASES_STD if isinstance(network.embed, Phrases) else EMBEDDING_STD


@torch.no_grad()
def initialise(network: Network, generator: torch.Generator) -> None:
    """Tables normal with std 0.02; linears with std 1/sqrt(inputs), those that write to the residual stream smaller.

    The stream is a sum of 2 · layers terms, hence 1/sqrt(2 · layers) for each (GPT-2).
    """
    core = network.core.config
    scores = core.head_dim**-0.5 / core.score_scale if core.heads else 1.0  # T5 has the scale in its queries
    writers = 1 / math.sqrt(2 * max(1, core.layers))
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(0, _table_std(network), generator=generator)
        elif isinstance(module, nn.Conv2d) and isinstance(network.embed, Convolutions):  # ReLU halves it (1502.01852)
            module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=generator)
        elif isinstance(network, Adversarial) and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.normal_(0, ADVERSARIAL_STD, generator=generator)
        elif isinstance(module, nn.Conv1d | nn.Conv2d):
            module.weight.normal_(0, module.weight[0].numel() ** -0.5, generator=generator)
        elif isinstance(module, nn.Linear):
            std = module.in_features**-0.5 * (writers if name.endswith((".o", ".down")) else 1.0)
            std *= scores if name.endswith(".q") else 1.0
            module.weight.normal_(0, std, generator=generator)
        elif isinstance(module, GroupNorm):
            module.weight.fill_(1.0)
        elif isinstance(module, Norm):
            module.weight.fill_(0.0 if module.kind == "rms1" else 1.0)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif name.endswith(("embed.token", "head.token")):
            parameter.normal_(0, EMBEDDING_STD, generator=generator)
        elif name == "head.sharpness":
            parameter.fill_(FIRST_SHARPNESS)
    if isinstance(network, Reconstruction):
        for table in network.tables:
            table.weight.copy_(grid(math.isqrt(len(table.weight) - 1), table.weight.shape[1]))
    for module in network.modules():
        if isinstance(module, Frames):
            module.positions.weight.copy_(waves(*module.positions.weight.shape))
        elif isinstance(module, Patches) and module.positions is not None:  # small ones drown in the patches
            whole = grid(module.config.image // module.config.patch, module.positions.embedding_dim)
            module.positions.weight.copy_(F.pad(whole[1:], (0, 0, module.config.tokens, 0)))
