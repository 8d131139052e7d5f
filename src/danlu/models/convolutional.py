"""What the families of convolutional networks share: a dial, and a config.json with a key for each size.

No stock family has them: their folders are danlu's own, under the names of the tensors here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from danlu.models import foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.adversarial import AdversarialConfig
from danlu.nn.config import TransformerConfig
from danlu.nn.convolutions import ConvolutionsConfig
from danlu.nn.denoiser import DenoiserConfig
from danlu.nn.heads import LabelConfig
from danlu.nn.phrases import PhrasesConfig

Convolved = ConvolutionsConfig | DenoiserConfig | AdversarialConfig

BLOCK = "embed.blocks.{n}"
CONVOLUTIONS = tuple(f"{BLOCK}.{name}" for name in ("conv", "second", "around"))  # a plain block has the first of each
NORMS = tuple(f"{BLOCK}.{name}" for name in ("norm", "last"))
_LARGE = 192  # pixels on each side from which a first convolution may take every second place
_STANDARDIZED = "weight_standardization"  # of config.json: the weights mean another model without it
_KEYS = {
    "image": "image_size",
    "channels": "num_channels",
    "width": "hidden_size",
    "stages": "num_stages",
    "depth": "num_layers",
    "patch": "patch_size",
    "latent": "latent_size",
    "stem": "stem_stride",
    "stop": "output_stage",
    "classes": "num_classes",
}  # of config.json, by the names of the sizes


@dataclass(frozen=True)
class Family:
    """A family of convolutional networks, by the values that its `preset`, `to_hf` and `from_hf` differ by."""

    model_type: str
    layout: Layout  # of one form
    embed: type[Convolved]
    width: int  # channels of the first stage, unless told
    follow: Callable[[int], dict[str, int]]  # the sizes that pixels on each side decide
    image: int = 32  # pixels on each side, unless told
    fixed: Mapping[str, Any] = field(default_factory=dict)  # values of the embedding that are the family's own
    dials: Sequence[str] = ("width",)

    def preset(
        self, vocab: int, context: int, depth: int, *, image: int = 0, channels: int = 3, tied: bool = True,
        dropout: float = 0.0, **sizes: int,
    ) -> Architecture:  # fmt: skip
        """One dial: convolutions or blocks of each stage, whose channels double from one to the next.

        `sizes` override it, those that `dials` names. Raises ValueError for others, and for stages without a pixel.
        """
        foreign.always_tied(tied)
        check_sizes(sizes, self.dials)
        image = image or self.image
        if image >> sizes.get("stages", 1) - 1 < 1:
            raise ValueError(f"stages ({sizes['stages']}) must leave a pixel of {image}")
        given = {"image": image, "channels": channels, "width": self.width, "depth": depth}
        head: Any = self.layout.forms[0].head
        return self._architecture(given | self.follow(image) | sizes, head, dropout)

    def to_hf(self, architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
        """What from_hf reads again."""
        embed: Any = architecture.embed
        said = {**self.layout.forms[0].write(architecture.head), "model_type": self.model_type, **written(embed)}
        return said | {"dropout": architecture.core.dropout, "torch_dtype": dtype}

    def from_hf(self, config: Mapping[str, Any]) -> Architecture:
        """The architecture of a config.json that to_hf wrote."""
        head: Any = self.layout.form_named(config).read(config)
        return self._architecture(read(config, self.embed), head, foreign.number(config, "dropout", 0.0))

    def _architecture(self, sizes: Mapping[str, int], head: LabelConfig, dropout: float) -> Architecture:
        head = replace(head, dropout=dropout) if head.count else head
        values: dict[str, Any] = {**sizes, **self.fixed}
        return stackless(self.embed(**values), dropout, head)


def written(embed: Convolved) -> dict[str, int]:
    """What config.json says of the sizes, and that filters are standardized where they are."""
    sizes = {_KEYS[each.name]: getattr(embed, each.name) for each in fields(embed) if each.name in _KEYS}
    return sizes | ({_STANDARDIZED: True} if isinstance(embed, ConvolutionsConfig) else {})


def read(config: Mapping[str, Any], embed: type[Convolved]) -> dict[str, int]:
    """The sizes of a config.json, by their names; where it gives none they are as usual, or it is refused (E329).

    So are weights whose filters are not standardized here (E329, E320).
    """
    if issubclass(embed, ConvolutionsConfig) and config.get(_STANDARDIZED) is not True:
        raise foreign.refusal(_STANDARDIZED, config.get(_STANDARDIZED))
    return {each.name: _size(config, _KEYS[each.name], each.default) for each in fields(embed) if each.name in _KEYS}


def _size(config: Mapping[str, Any], key: str, usual: Any) -> int:
    if usual == 0:  # then it may be 0
        return int(foreign.number(config, key, usual))
    return foreign.positive(config, key, None if usual is MISSING else usual)


def layout(
    stock: str, head: LabelConfig, weights: Sequence[str] = CONVOLUTIONS, biased: Sequence[str] = NORMS
) -> Layout:
    """Names of tensors, which are those that they have here: of modules with a weight alone, and with a bias too."""
    names = {f"{name}.weight": f"{name}.weight" for name in weights} | both({name: name for name in biased})
    return Layout(names, "", (Form(stock, head, both({"head.output": "head.output"}) if head.count else {}),))


def halved(image: int, smallest: int, most: int) -> int:
    """Stages of a picture that is halved from one to the next, while the last has `smallest` pixels on each side."""
    stages = 1
    while image >> stages >= smallest and stages < most:
        stages += 1
    return stages


def entered(image: int, most: int) -> tuple[int, int]:
    """How far apart the places of the first convolution are, and stages, of which the last has 3 pixels at least."""
    stem = 2 if image >= _LARGE else 1
    return stem, halved(image // stem, 3, most)


def staged(model_type: str, layout: Layout, width: int, kind: str, dials: Sequence[str]) -> Family:
    """A family of stages alone: unless told as many as leave 6 pixels on each side to the last, at most 5."""

    def follow(image: int) -> dict[str, int]:
        return {"stages": halved(image, 6, 5)}

    return Family(model_type, layout, ConvolutionsConfig, width, follow, fixed={"kind": kind}, dials=dials)


def stackless(embed: Convolved | PhrasesConfig, dropout: float, head: LabelConfig, context: int = 1) -> Architecture:
    """Behind convolutions the stack has no layers."""
    core = TransformerConfig(
        dim=embed.dim, layers=0, heads=0, kv_heads=0, head_dim=0, hidden=0, mlp="relu", norm="layer", placement="post",
        position=None, mask="full", dropout=dropout,
    )  # fmt: skip
    return Architecture(core, embed, head, context)
