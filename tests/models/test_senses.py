"""Models of images and sounds against transformers, in float64, with every tensor random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from danlu import models
from danlu.errors import UserError
from danlu.models.architecture import build
from danlu.nn.cache import Cache
from danlu.nn.generate import Sampling, generate
from danlu.nn.heads import LabelConfig
from tests.models import pairs
from tests.models.pairs import CONTEXT, TOKENS, Pair, Row, difference, here, there
from tests.models.stock import TOLERANCE, VOCAB, ids

EOS = 96
ROWS = {
    "vit-labels": Row("vit", {"patch": 4}, LabelConfig(7, "first")),
    "vit-states": Row("vit", {"patch": 8}, LabelConfig(0, "first", "tanh")),
    "vit-gray": Row("vit", {"patch": 8, "channels": 1}, LabelConfig(3, "first"), {"mlp": "gelu_tanh"}),
    "ijepa-labels": Row("ijepa", {"patch": 4}, LabelConfig(7, "mean")),
    "ijepa-states": Row("ijepa", {"patch": 8}, LabelConfig(0, "each"), {"mlp": "gelu_tanh"}),
    "clip": Row("clip", {"image": 24, "patch": 8, "eos": EOS}),
    "clip-old": Row("clip", {"image": 30, "patch": 8, "eos": -1}, core={"mlp": "gelu"}),
    "whisper": Row("whisper", {"mels": 12, "places": 20}),
    "whisper-wide": Row("whisper", {"mels": 8, "places": 10, "hidden": 96}),
}


@pytest.fixture(params=ROWS)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    return pairs.pair(ROWS[request.param], monkeypatch)


@pytest.fixture(params=[name for name in ROWS if name.startswith("whisper")])
def listener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    return pairs.pair(ROWS[request.param], monkeypatch)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def inputs(pair: Pair) -> dict[str, Tensor]:
    """What both read, under the same names."""
    made = pair.architecture
    if made.encoder is None:
        return {"pixel_values": noise(3, made.embed.channels, made.embed.image, made.embed.image)}  # type: ignore[union-attr]
    side: Any = made.encoder.embed
    if hasattr(side, "mels"):
        return {"input_features": noise(2, side.mels, 2 * side.positions), "decoder_input_ids": ids(2, 24)}
    texts = ids(4, 20).clamp(max=EOS - 1)
    for row in range(4):
        texts[row, 19 - 3 * row] = EOS
    return {"input_ids": texts, "pixel_values": noise(3, 3, side.image, side.image)}


def call(model: nn.Module, **batch: Tensor) -> Tensor:
    return there(model, **batch)


def test_answers_are_equal(pair: Pair) -> None:
    batch = inputs(pair)
    expected = call(pair.theirs, **batch)
    assert expected.std() >= (0.15 if "clip" in pair.family.__name__ else 0.4)  # cosines
    stacks = [pair.ours] + ([pair.ours.encoder] if pair.architecture.encoder else [])  # type: ignore[list-item]
    for form in ("sdpa", "written"):
        for stack in stacks:
            stack.core.attention_form = form
        assert difference(here(pair.ours, **batch), expected) <= TOLERANCE


def test_any_changed_tensor_is_noticed(pair: Pair) -> None:
    batch = inputs(pair)
    expected = call(pair.theirs, **batch)
    for name, p in pair.ours.named_parameters():
        if name.endswith(".k.bias"):
            continue  # softmax cancels it: q·b is the same for every key
        kept = p.detach().clone()
        p.data = torch.ones_like(p) if p.ndim == 1 and name.endswith("weight") else torch.zeros_like(p)
        assert not difference(here(pair.ours, **batch), expected) <= 1e-5, name  # a vector of zeros has no direction
        p.data = kept


CHANGES: list[dict[str, Any]] = [{"norm_eps": 1e-2}, {"mlp": "relu"}, {"mask": "other"}, {"scale": 1.0}]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_any_changed_value_is_noticed(pair: Pair, change: dict[str, Any]) -> None:
    made = pair.architecture
    change = {"mask": {"full": "causal", "causal": "full"}[made.core.mask]} if "mask" in change else change
    network = build(replace(made, core=replace(made.core, **change)), torch.Generator()).double().eval()
    network.load_state_dict(pair.ours.state_dict())
    batch = inputs(pair)
    assert difference(here(network, **batch), call(pair.theirs, **batch)) > 1e-6


def test_our_folder_opens_there_and_theirs_here(pair: Pair, tmp_path: Path) -> None:
    batch = inputs(pair)
    pairs.opens_in_both_directions(pair, tmp_path, lambda model: call(model, **batch), batch)


def test_padded_texts_are_read_at_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where what follows the end is told to be padding."""
    pair = pairs.pair(ROWS["clip"], monkeypatch)
    batch = inputs(pair)
    mask = (torch.arange(20) <= (batch["input_ids"] == EOS).int().argmax(1)[:, None]).long()
    expected = call(pair.theirs, **batch, attention_mask=mask)
    assert difference(here(pair.ours, **batch, segment_ids=mask), expected) <= TOLERANCE


def test_speech_through_the_cache(listener: Pair) -> None:
    batch = inputs(listener)
    expected = call(listener.theirs, **batch)
    cache = Cache(listener.architecture.core, 2, CONTEXT, torch.float64)
    tokens = batch["decoder_input_ids"]
    with torch.no_grad():
        parts = [listener.ours(batch | {"decoder_input_ids": tokens[:, :5]}, cache)]
        parts += [listener.ours({"decoder_input_ids": tokens[:, at : at + 1]}, cache) for at in range(5, 24)]
    assert difference(torch.cat(parts, 1), expected) <= TOLERANCE


def test_greedy_tokens_are_those_of_the_stock_model(listener: Pair) -> None:
    """64 tokens through our cache; the stock model computes every one anew."""
    features = inputs(listener)["input_features"][:1]
    tokens = [0]
    for _ in range(64):
        logits = call(listener.theirs, input_features=features, decoder_input_ids=torch.tensor([tokens]))
        tokens.append(int(logits[0, -1].argmax()))
    greedy = Sampling(temperature=0.0, max_tokens=64)
    assert list(generate(listener.ours, [0], greedy, end_ids=(), source={"input_features": features})) == tokens[1:]


@pytest.mark.parametrize(
    ("family", "options", "changes"),
    [
        ("vit", {}, {"qkv_bias": False}),
        ("vit", {}, {"hidden_act": "tanh"}),
        ("vit", {}, {"patch_size": 64}),
        ("whisper", {}, {"scale_embedding": True}),
        ("clip", {}, {"projection_dim": 0}),
        ("clip", {}, {"architectures": ["CLIPTextModel"]}),
    ],
)
def test_configs_that_we_do_not_carry_are_refused(
    family: str, options: dict[str, Any], changes: dict[str, Any]
) -> None:
    module = models.family(family)
    config = module.to_hf(module.preset(VOCAB, 32, 2, **options), TOKENS) | changes
    with pytest.raises(UserError) as caught:
        module.from_hf(config)
    assert caught.value.code == "E320"
    assert next(iter(changes)) in str(caught.value)


def test_inputs_of_another_size_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    image = build(ROWS["vit-labels"].architecture, torch.Generator())
    for learning, side in ((False, 20), (False, 60), (True, 60)):  # smaller ones are seen while it learns
        with pytest.raises(ValueError, match="pixels"):
            image.train(learning)({"pixel_values": torch.zeros(1, 3, side, side)})
    sound = build(ROWS["whisper"].architecture, torch.Generator())
    with pytest.raises(ValueError, match="frames"):
        sound({"input_features": torch.zeros(1, 12, 30), "decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)})
