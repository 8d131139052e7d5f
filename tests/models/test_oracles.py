"""Qwen3's and GPT-2's forms against transformers, in float64, with every tensor random."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from danlu import models
from danlu.models.architecture import Architecture, build
from danlu.nn.cache import Cache
from danlu.nn.network import Network
from danlu.nn.positions import Rotary
from tests.models.stock import TOLERANCE, VOCAB, ids, lift, logits, padding, randomised, stock_positions

CLASSES = {"qwen3": transformers.Qwen3ForCausalLM, "gpt2": transformers.GPT2LMHeadModel}
CONTEXT = 48
TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
LLAMA3 = Rotary(theta=1e4, scaling="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=16)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {}),
    "qwen3-grouped": ("qwen3", {"kv_heads": 2, "head_dim": 32}),
    "qwen3-one-kv-untied": ("qwen3", {"kv_heads": 1, "tied": False}),
    "gpt2": ("gpt2", {}),
    "gpt2-untied": ("gpt2", {"tied": False, "hidden": 96}),
}


@dataclass
class Pair:
    """The same weights twice."""

    ours: Network
    theirs: nn.Module
    architecture: Architecture
    family: str


def architecture_of(name: str) -> Architecture:
    family, options = VARIANTS[name]
    return models.family(family).preset(VOCAB, CONTEXT, 3, width=64, heads=4, **options)


def stock(architecture: Architecture, family: str) -> nn.Module:
    """transformers' model of our config.json, random in every tensor."""
    config = models.family(family).to_hf(architecture, TOKENS)
    cls = CLASSES[family]
    return randomised(cls(cls.config_class(**config)))


def ours_from(theirs: nn.Module, architecture: Architecture, family: str) -> Network:
    network = build(architecture, torch.Generator()).double().eval()
    network.load_state_dict(models.family(family).import_weights(theirs.state_dict()))
    return network


@pytest.fixture(params=VARIANTS)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    lift(monkeypatch, "qwen3")
    family, architecture = VARIANTS[request.param][0], architecture_of(request.param)
    theirs = stock(architecture, family)
    return Pair(ours_from(theirs, architecture, family), theirs, architecture, family)


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("form", ["sdpa", "written"])
def test_logits_are_equal(pair: Pair, form: str) -> None:
    pair.ours.core.attention_form = form
    tokens = ids(3, CONTEXT)
    expected = logits(pair.theirs, tokens)
    assert expected.std() >= 1
    assert difference(logits(pair.ours, {"input_ids": tokens}), expected) <= TOLERANCE


@pytest.mark.parametrize("form", ["sdpa", "written"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(pair: Pair, side: str, form: str) -> None:
    pair.ours.core.attention_form = form
    tokens, mask = ids(3, 32), padding(side, 3, 32)
    expected = logits(pair.theirs, tokens, attention_mask=mask, position_ids=stock_positions(mask))
    found = logits(pair.ours, {"input_ids": tokens, "segment_ids": mask})
    assert difference(found[mask == 1], expected[mask == 1]) <= TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
def test_reading_by_pieces_through_the_cache(pair: Pair, side: str) -> None:
    """A padded prompt at once, then token after token, each row at its own length."""
    tokens, mask, more = ids(3, 20), padding(side, 3, 20), ids(3, 12, seed=2)
    cache = Cache(pair.architecture.core, 3, CONTEXT, torch.float64)
    logits(pair.ours, {"input_ids": tokens, "segment_ids": mask}, cache)
    for step in range(12):
        found = logits(pair.ours, {"input_ids": more[:, step : step + 1]}, cache)
        for row in range(3):
            whole = torch.cat((tokens[row][mask[row] == 1], more[row, : step + 1]))[None]
            assert difference(found[row, -1], logits(pair.theirs, whole)[0, -1]) <= TOLERANCE


def test_the_loss_and_every_gradient_are_equal(pair: Pair) -> None:
    tokens = ids(2, 24)
    pair.theirs(tokens, labels=tokens).loss.backward()
    shifted = pair.ours({"input_ids": tokens})[:, :-1].flatten(0, 1)
    nn.functional.cross_entropy(shifted, tokens[:, 1:].flatten()).backward()
    names = models.family(pair.family).export_weights({n: p.grad for n, p in pair.ours.named_parameters()})
    for name, p in pair.theirs.named_parameters():
        assert difference(names[name], p.grad) <= 1e-7, name


def test_any_changed_tensor_is_noticed(pair: Pair) -> None:
    tokens = ids(1, 16)
    expected = logits(pair.theirs, tokens)
    for name, p in pair.ours.named_parameters():
        if name.endswith(".k.bias"):  # softmax cancels it: q·b is the same for every key
            continue
        kept = p.detach().clone()
        p.data = torch.ones_like(p) if p.ndim == 1 and name.endswith("weight") else torch.zeros_like(p)
        assert difference(logits(pair.ours, {"input_ids": tokens}), expected) > 1e-3, name
        p.data = kept


@pytest.mark.parametrize(
    "change",
    [
        {"norm_eps": 1e-2},
        {"mlp": "reglu"},
        {"mask": "full"},
        {"scale": 1.0},
        {"position": Rotary(theta=500.0)},
        {"window": (4,)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_changed_value_is_noticed(pair: Pair, change: dict[str, Any]) -> None:
    if pair.family == "gpt2":
        change = {"mlp": "gelu"} if "mlp" in change else change
    tokens = ids(1, 16)
    changed = replace(pair.architecture, core=replace(pair.architecture.core, **change))
    network = build(changed, torch.Generator()).double().eval()
    network.load_state_dict(pair.ours.state_dict())
    floor = 1e-6 if change.get("mlp") == "gelu" else 1e-3
    assert difference(logits(network, {"input_ids": tokens}), logits(pair.theirs, tokens)) > floor


def test_our_folder_opens_there_and_theirs_here(pair: Pair, tmp_path: Path) -> None:
    family, tokens = models.family(pair.family), ids(2, 20)
    config = family.to_hf(pair.architecture, TOKENS, dtype="float64")
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(family.export_weights(pair.ours.state_dict()), tmp_path / "model.safetensors", {"format": "pt"})
    opened, report = CLASSES[pair.family].from_pretrained(tmp_path, dtype=torch.float64, output_loading_info=True)
    assert not any(report.values()), report
    assert difference(logits(opened.eval(), tokens), logits(pair.ours, {"input_ids": tokens})) <= TOLERANCE

    pair.theirs.save_pretrained(tmp_path / "theirs")
    written = json.loads((tmp_path / "theirs" / "config.json").read_text())
    architecture = models.by_model_type(written["model_type"]).from_hf(written)
    assert architecture == pair.architecture
    network = build(architecture, torch.Generator()).double().eval()
    network.load_state_dict(family.import_weights(load_file(tmp_path / "theirs" / "model.safetensors")))
    assert difference(logits(network, {"input_ids": tokens}), logits(pair.theirs, tokens)) <= TOLERANCE


@pytest.mark.parametrize(
    "rotary",
    [
        LLAMA3,
        Rotary(theta=1e4, scaling="linear", factor=4.0),
        Rotary(theta=1e4, scaling="yarn", factor=4.0, original_length=16),
    ],
    ids=lambda rotary: rotary.scaling,
)
def test_stretched_positions_past_the_first_context(rotary: Rotary, monkeypatch: pytest.MonkeyPatch) -> None:
    lift(monkeypatch, "qwen3")
    plain = architecture_of("qwen3-grouped")
    architecture = replace(plain, core=replace(plain.core, position=rotary))
    assert models.carrier(architecture) == "qwen3"
    theirs = stock(architecture, "qwen3")
    found = models.family("qwen3").from_hf(theirs.config.to_dict())
    assert found == architecture
    tokens = ids(2, 64)
    ours = ours_from(theirs, architecture, "qwen3")
    assert difference(logits(ours, {"input_ids": tokens}), logits(theirs, tokens)) <= TOLERANCE
    unstretched = ours_from(theirs, plain, "qwen3")
    assert difference(logits(unstretched, {"input_ids": tokens}), logits(theirs, tokens)) > 1e-3


@pytest.mark.parametrize("name", VARIANTS)
def test_narrower_numbers_stay_close(name: str, record_property: Any) -> None:
    """fp32 and bf16 (matrices only) beside float64: reported, and held to what their width allows."""
    family, architecture = VARIANTS[name][0], architecture_of(name)
    wide = randomised(build(architecture, torch.Generator()))
    tokens = {"input_ids": ids(2, CONTEXT)}
    expected = logits(wide, tokens)
    for dtype, limit in ((torch.float32, 1e-4), (torch.bfloat16, 0.25)):
        narrow = copy.deepcopy(wide).float()
        for p in narrow.parameters():
            if p.ndim > 1:
                p.data = p.data.to(dtype)
        for form in ("sdpa", "written"):
            narrow.core.attention_form = form
            found = logits(narrow, tokens)
            assert found.dtype == dtype
            error = float((found - expected).norm() / expected.norm())
            record_property(f"{family}-{form}-{dtype}", error)
            assert error <= limit
