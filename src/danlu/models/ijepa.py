"""A ViT without a class token, whose answer is read from the mean of its patches (Zhai et al. 2022, arXiv:2106.04560).

Its stock form is I-JEPA's (2301.08243); its files name their tensors as ViT's do, under a root of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from danlu.models import foreign, vit
from danlu.models.architecture import Architecture
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.heads import LabelConfig
from danlu.nn.stems import PatchesConfig

SUITS = "named"  # tasks that name it
TASK, DEPTH = vit.TASK, vit.DEPTH
DIALS = ("width", "heads", "hidden", "patch")
SIZES = {**vit.SIZES}
EMBED = PatchesConfig
LAYOUT = Layout(
    vit.body_names("ijepa"),
    "ijepa.",
    (
        Form("IJepaForImageClassification", LabelConfig(1, "mean"), both({"head.output": "classifier"})),
        Form("IJepaModel", LabelConfig(0, "each")),
    ),
    (),
    {},
    vit.LAYOUT.to_theirs,
    vit.LAYOUT.to_ours,
)


def preset(vocab: int, context: int, depth: int, **choices: Any) -> Architecture:
    """As a ViT's. Raises ValueError where sizes do not fit together."""
    made = vit.preset(vocab, context, depth, **choices)
    return replace(_without_token(made), head=LabelConfig(1, "mean"))


def _without_token(made: Architecture) -> Architecture:
    assert isinstance(made.embed, PatchesConfig)
    embed = replace(made.embed, tokens=0)
    return replace(made, embed=embed, context=embed.count)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; an image model has no tokens."""
    form = LAYOUT.form_of(architecture.head)
    assert form is not None
    return {**form.write(architecture.head), "model_type": "ijepa", **vit.written(architecture, dtype)}


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    foreign.only(config, pooler_act="tanh")
    return replace(_without_token(vit.body(config)), head=LAYOUT.form_named(config).read(config))
