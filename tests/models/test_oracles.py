"""Every family of decoders against transformers, in float64, with every tensor random."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from danlu.models.architecture import build
from danlu.nn.cache import Cache
from danlu.nn.generate import Sampling, generate
from danlu.nn.heads import LabelConfig
from danlu.nn.positions import Rotary
from tests.models import pairs
from tests.models.pairs import CONTEXT, TOKENS, Pair, Row, difference, here, network, there
from tests.models.stock import TOLERANCE, ids, padding, randomised, stock_positions

LLAMA3 = Rotary(theta=1e4, scaling="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=16)
SPEAKING = {
    "qwen3": Row("qwen3", {}),
    "qwen3-grouped": Row("qwen3", {"kv_heads": 2, "head_dim": 32}),
    "qwen3-one-kv-untied": Row("qwen3", {"kv_heads": 1, "tied": False}),
    "gpt2": Row("gpt2", {}),
    "gpt2-untied": Row("gpt2", {"tied": False, "hidden": 96}),
    "llama": Row("llama", {}),
    "llama-grouped-untied": Row("llama", {"kv_heads": 2, "head_dim": 24, "tied": False}),
    "mistral": Row("mistral", {"kv_heads": 2}, core={"window": (7,)}),
    "mistral-untied": Row("mistral", {"tied": False, "head_dim": 32}),
    "qwen2": Row("qwen2", {}),
    "qwen2-grouped-untied": Row("qwen2", {"kv_heads": 1, "tied": False}),
    "arcee": Row("arcee", {"kv_heads": 2}),
    "arcee-untied": Row("arcee", {"tied": False}),
    "gemma3": Row("gemma3", {"kv_heads": 2, "head_dim": 24}, core={"window": (7, 7, 0)}),
    "gemma3-own-scale-untied": Row("gemma3", {"tied": False}, core={"window": (0, 5), "scale": 24**-0.5}),
}
LABELS = {
    f"{family}-{kind}": Row(family, {}, head)
    for family in ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "gemma3")
    for kind, head in {
        "labels": LabelConfig(3, "last", bias="none"),
        "tokens": LabelConfig(5, "each"),
        "states": LabelConfig(0, "each"),
    }.items()
    if (family, kind) != ("gemma3", "tokens")
}
ROWS = SPEAKING | LABELS


@pytest.fixture(params=ROWS)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    return pairs.pair(ROWS[request.param], monkeypatch)


@pytest.fixture(params=SPEAKING)
def speaker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    return pairs.pair(SPEAKING[request.param], monkeypatch)


@pytest.mark.parametrize("form", ["sdpa", "written"])
def test_logits_are_equal(pair: Pair, form: str) -> None:
    pair.ours.core.attention_form = form
    tokens = ids(3, CONTEXT)
    expected = there(pair.theirs, tokens)
    assert expected.std() >= 0.9
    assert difference(here(pair.ours, input_ids=tokens), expected) <= TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(pair: Pair, side: str) -> None:
    tokens, mask = ids(3, 32), padding(side, 3, 32)
    tokens = torch.where(mask == 1, tokens, TOKENS["pad_token_id"])
    expected = there(pair.theirs, tokens, attention_mask=mask, position_ids=stock_positions(mask))
    for form in ("sdpa", "written"):
        pair.ours.core.attention_form = form
        found = here(pair.ours, input_ids=tokens, segment_ids=mask)
        real = mask == 1 if found.ndim == 3 else slice(None)
        assert difference(found[real], expected[real]) <= TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
def test_reading_by_pieces_through_the_cache(speaker: Pair, side: str) -> None:
    """A padded prompt at once, then token after token, each row at its own length."""
    tokens, mask, more = ids(3, 20), padding(side, 3, 20), ids(3, 12, seed=2)
    cache = Cache(speaker.architecture.core, 3, CONTEXT, torch.float64)
    with torch.no_grad():
        speaker.ours({"input_ids": tokens, "segment_ids": mask}, cache)
    for step in range(12):
        with torch.no_grad():
            found = speaker.ours({"input_ids": more[:, step : step + 1]}, cache)
        for row in range(3):
            whole = torch.cat((tokens[row][mask[row] == 1], more[row, : step + 1]))[None]
            assert difference(found[row, -1], there(speaker.theirs, whole)[0, -1]) <= TOLERANCE


def test_greedy_tokens_are_the_same(speaker: Pair) -> None:
    """64 tokens, each through the cache on both sides."""
    prompt = ids(1, 9)
    theirs: Any = speaker.theirs
    said = theirs.generate(prompt, do_sample=False, max_new_tokens=64, eos_token_id=None, pad_token_id=1)
    greedy = Sampling(temperature=0.0, max_tokens=64)
    assert list(generate(speaker.ours, prompt[0].tolist(), greedy, end_ids=())) == said[0, 9:].tolist()


def test_the_loss_and_every_gradient_are_equal(speaker: Pair) -> None:
    tokens = ids(2, 24)
    theirs = speaker.theirs(tokens).logits[:, :-1].flatten(0, 1)
    nn.functional.cross_entropy(theirs, tokens[:, 1:].flatten()).backward()
    shifted = speaker.ours({"input_ids": tokens})[:, :-1].flatten(0, 1)
    nn.functional.cross_entropy(shifted, tokens[:, 1:].flatten()).backward()
    gradients = {n: p.grad for n, p in speaker.ours.named_parameters() if p.grad is not None}
    names = speaker.family.LAYOUT.export_weights(gradients, speaker.architecture.head)
    for name, p in speaker.theirs.named_parameters():
        assert difference(names[name], p.grad) <= 1e-7, name


def test_any_changed_tensor_is_noticed(pair: Pair) -> None:
    tokens = ids(1, 16)
    expected = there(pair.theirs, tokens)
    for name, p in pair.ours.named_parameters():
        if name.endswith(".k.bias") and pair.architecture.core.position is None:
            continue  # softmax cancels it: q·b is the same for every key
        kept = p.detach().clone()
        p.data = torch.ones_like(p) if p.ndim == 1 and name.endswith("weight") else torch.zeros_like(p)
        assert difference(here(pair.ours, input_ids=tokens), expected) > 1e-3, name
        p.data = kept


CHANGES: list[dict[str, Any]] = [
    {"norm_eps": 1e-2},
    {"mlp": "another"},
    {"mask": "full"},
    {"scale": 1.0},
    {"position": Rotary(theta=500.0)},
    {"window": (4,)},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_any_changed_value_is_noticed(pair: Pair, change: dict[str, Any]) -> None:
    if "mlp" in change:
        change = {"mlp": {"gelu_tanh": "gelu", "relu2": "relu"}.get(pair.architecture.core.mlp, "reglu")}
    tokens = ids(1, 16)
    changed = replace(pair.architecture, core=replace(pair.architecture.core, **change))
    network = build(changed, torch.Generator()).double().eval()
    network.load_state_dict(pair.ours.state_dict())
    floor = 1e-6 if change.get("mlp") == "gelu" else 1e-3
    assert difference(here(network, input_ids=tokens), there(pair.theirs, tokens)) > floor


def test_our_folder_opens_there_and_theirs_here(pair: Pair, tmp_path: Path) -> None:
    tokens = ids(2, 20)
    pairs.opens_in_both_directions(pair, tmp_path, lambda model: there(model, tokens), {"input_ids": tokens})


@pytest.mark.parametrize("family", ["qwen3", "llama", "mistral", "qwen2", "gemma3"])
@pytest.mark.parametrize(
    "rotary",
    [
        LLAMA3,
        Rotary(theta=1e4, scaling="linear", factor=4.0),
        Rotary(theta=1e4, scaling="yarn", factor=4.0, original_length=16),
    ],
    ids=lambda rotary: rotary.scaling,
)
def test_stretched_positions_past_the_first_context(
    rotary: Rotary, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = {"local_theta": 500.0} if family == "gemma3" else {}
    stretched = Row(family, {"kv_heads": 2}, core={"position": replace(rotary, **local)})
    made = pairs.pair(stretched, monkeypatch)
    assert made.family.from_hf(made.theirs.config.to_dict()).core.position == stretched.architecture.core.position  # type: ignore[operator, union-attr]
    tokens = ids(2, 120)
    assert difference(here(made.ours, input_ids=tokens), there(made.theirs, tokens)) <= TOLERANCE
    unstretched = network(Row(family, {"kv_heads": 2}).architecture, made.family, made.theirs)
    assert difference(here(unstretched, input_ids=tokens), there(made.theirs, tokens)) > 1e-3


@pytest.mark.parametrize("name", SPEAKING)
def test_narrower_numbers_stay_close(name: str, record_property: Any) -> None:
    """fp32 and bf16 (matrices only) beside float64: reported, and held to what their width allows."""
    row = SPEAKING[name]
    wide = randomised(build(row.architecture, torch.Generator()))
    tokens = {"input_ids": ids(2, 48)}
    expected = here(wide, **tokens)
    for dtype, limit in ((torch.float32, 1e-4), (torch.bfloat16, 0.25)):
        narrow = copy.deepcopy(wide).float()
        for p in narrow.parameters():
            if p.ndim > 1:
                p.data = p.data.to(dtype)
        for form in ("sdpa", "written"):
            narrow.core.attention_form = form
            found = here(narrow, **tokens)
            assert found.dtype == dtype
            error = float((found - expected).norm() / expected.norm())
            record_property(f"{row.family}-{form}-{dtype}", error)
            assert error <= limit
