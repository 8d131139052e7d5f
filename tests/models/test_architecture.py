"""Presets, first weights, and configs that are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from danlu import models
from danlu.errors import UserError
from danlu.models.architecture import build, computed
from danlu.models.foreign import renamed, without_copy
from danlu.nn.heads import LabelConfig, PairConfig, VocabularyConfig
from danlu.nn.losses import token_losses
from danlu.nn.positions import Buckets

VOCAB = 300
TIED = VocabularyConfig()


def config(family: str, **changes: Any) -> dict[str, Any]:
    architecture = models.family(family).preset(VOCAB, 32, 2)
    return models.family(family).to_hf(architecture, {}) | changes


@pytest.mark.parametrize("name", ["gpt", "gpt2"])
def test_first_weights_are_a_function_of_the_generator(name: str) -> None:
    architecture = models.family(name).preset(VOCAB, 32, 2)
    first, same, other = (build(architecture, torch.Generator().manual_seed(s)).state_dict() for s in (1, 1, 2))
    assert all(first[key].equal(same[key]) for key in first)
    assert not first["embed.tokens.weight"].equal(other["embed.tokens.weight"])
    assert all(tensor.isfinite().all() for tensor in first.values())


@pytest.mark.parametrize("name", ["gpt", "gpt2"])
def test_the_first_loss_is_near_that_of_guessing(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    network = build(models.family(name).preset(VOCAB, 32, 3), generator)
    ids = torch.randint(0, VOCAB, (8, 32), generator=generator)
    losses, _ = token_losses(network.hidden({"input_ids": ids}).flatten(0, 1), network.head.weight, ids.flatten())
    assert abs(float(losses.mean()) - math.log(VOCAB)) < 0.6


def test_places_of_patches_are_heard_beside_what_is_seen() -> None:
    """Tables as faint as those of tokens drown in patches: the network begins as a bag of them, and learns slowly."""
    network = build(models.family("vit").preset(10, 1, 4), torch.Generator().manual_seed(0))
    seen = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    places = network.embed.positions.weight[1:].detach()
    patches = network.embed(seen)[:, 1:].detach() - places
    assert 0.3 < float(places.std() / patches.std()) < 3
    assert float(torch.cdist(places, places).fill_diagonal_(9).min()) > 0.5, "two places are told apart"


def test_the_depth_dial() -> None:
    core = models.family("gpt").preset(VOCAB, 32, 6).core
    assert (core.layers, core.dim, core.heads, core.kv_heads, core.head_dim, core.hidden) == (6, 384, 6, 6, 64, 1024)
    core = models.family("gpt2").preset(VOCAB, 32, 6).core
    assert (core.layers, core.dim, core.heads, core.head_dim, core.hidden) == (6, 384, 6, 64, 1536)
    core = models.family("gpt").preset(VOCAB, 32, 4, width=128, heads=8, kv_heads=2, head_dim=32, hidden=100).core
    assert (core.layers, core.dim, core.heads, core.kv_heads, core.head_dim, core.hidden) == (4, 128, 8, 2, 32, 100)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen3", {"hidden_act": "gelu"}),
        ("qwen3", {"attention_bias": True}),
        ("qwen3", {"use_sliding_window": True}),
        ("qwen3", {"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}),
        ("qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7}}),
        ("qwen3", {"hidden_size": "many"}),
        ("qwen3", {"num_hidden_layers": 0}),
        ("qwen3", {"rms_norm_eps": float("nan")}),
        ("qwen3", {"vocab_size": None}),
        ("gpt2", {"activation_function": "relu"}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"scale_attn_weights": False}),
        ("gpt2", {"add_cross_attention": True}),
        ("gpt2", {"n_head": 5}),
        ("gpt2", {"embd_pdrop": 0.5}),
    ],
)
def test_configs_that_we_do_not_carry_are_refused(family: str, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        models.family(family).from_hf(config(family, **changes))
    assert caught.value.code == ("E329" if None in changes.values() else "E320"), "nothing said is another fault"
    assert next(iter(changes)) in str(caught.value) or "rope" in next(iter(changes))


def test_old_and_new_spellings_of_the_rotary_base() -> None:
    old = models.family("qwen3").from_hf(config("qwen3", rope_theta=5e5))
    new = models.family("qwen3").from_hf(config("qwen3", rope_parameters={"rope_type": "default", "rope_theta": 5e5}))
    assert old == new
    assert old.core.position.theta == 5e5


@pytest.mark.parametrize(
    ("form", "sizes"),
    [("gpt2", {"kv_heads": 2}), ("gpt2", {"heads": 3}), ("gpt", {"heads": 4, "kv_heads": 3}), ("gpt", {"depths": 3})],
)
def test_sizes_that_make_no_model_are_refused(form: str, sizes: dict[str, int]) -> None:
    with pytest.raises(UserError) as caught:
        models.preset(form, VOCAB, 32, 2, **sizes)
    assert caught.value.code == "E323"


def test_types_we_do_not_open_are_named() -> None:
    with pytest.raises(UserError) as caught:
        models.by_model_type("mamba")
    assert caught.value.code == "E322"
    with pytest.raises(ValueError, match="no family"):
        models.family("mamba")


def test_tensors_without_a_place_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        models.family("qwen3").LAYOUT.import_weights({"model.layers.0.self_attn.q_proj.lora": torch.zeros(4)}, TIED)
    assert caught.value.code == "E321"


def test_files_that_hold_a_tied_table_twice() -> None:
    table = torch.randn(4, 3, generator=torch.Generator())
    theirs = {"model.embed_tokens.weight": table, "lm_head.weight": table.clone()}
    assert list(models.family("qwen3").LAYOUT.import_weights(theirs, TIED)) == ["embed.tokens.weight"]
    assert len(without_copy(theirs | {"lm_head.weight": table + 1}, "lm_head.weight", "model.embed_tokens.weight")) == 2


def test_public_gpt2_files() -> None:
    """They lack the prefix, and hold the causal masks of each layer."""
    family = models.family("gpt2")
    state = build(family.preset(VOCAB, 32, 2), torch.Generator()).state_dict()
    exported = family.LAYOUT.export_weights(state, TIED)
    theirs = {name.removeprefix("transformer."): tensor for name, tensor in exported.items()}
    theirs |= {"h.0.attn.bias": torch.ones(1, 1, 32, 32), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    back = family.LAYOUT.import_weights(theirs, TIED)
    assert back.keys() == state.keys()
    assert all(back[name].equal(tensor) for name, tensor in state.items())


def test_layer_numbers_of_any_length() -> None:
    names = {"a.{n}.b": "c.{n}.d", "x": "y"}
    tensor = torch.zeros(1)
    assert renamed({"a.0.b": tensor, "a.117.b": tensor, "x": tensor}, names).keys() == {"c.0.d", "c.117.d", "y"}


@pytest.mark.parametrize("name", models.FAMILIES)
def test_a_preset_is_carried_by_its_family(name: str) -> None:
    """Mistral's form without a window is Llama's, ELECTRA's with wide tables BERT's: the earlier one carries both."""
    made = models.family(name).preset(VOCAB, 32, 2)
    assert models.carrier(made) == name
    also = {each for each in models.FAMILIES if models.carries(each, made)} - {name}
    assert also <= {"llama": {"mistral"}, "bert": {"electra"}}.get(name, set())


@pytest.mark.parametrize("name", models.FAMILIES)
def test_configs_are_read_back_as_they_were(name: str) -> None:
    """Through text, and with every number of the core another than its default."""
    module = models.family(name)
    made = module.preset(VOCAB, 32, 3, dropout=0.25)
    again = module.from_hf(json.loads(json.dumps(module.to_hf(made, {"bos_token_id": 1, "eos_token_id": 2}))))
    assert computed(again) == computed(made)


@pytest.mark.parametrize("name", ["cnn", "resnet", "unet", "fcos", "detr"])
def test_folders_without_standardized_filters_are_refused(name: str) -> None:
    """The same tensors mean another model then: it would open, and answer otherwise without a word."""
    module = models.family(name)
    said = module.to_hf(module.preset(0, 1, 1), {})
    for value, code in ((None, "E329"), (False, "E320")):
        with pytest.raises(UserError, match="weight_standardization") as caught:
            module.from_hf(said | {"weight_standardization": value})
        assert caught.value.code == code


def test_what_has_no_carrier_is_said() -> None:
    """None is the answer for a model that no stock family holds."""
    plain = models.family("gpt").preset(VOCAB, 32, 2)
    for change in (
        {"mlp": "silu"},
        {"bias": "all"},
        {"window": (8,)},
        {"placement": "sandwich"},
        {"position": Buckets()},
        {"position": None},
    ):
        assert models.carrier(replace(plain, core=replace(plain.core, **change))) is None
    assert models.carrier(replace(plain, embed=replace(plain.embed, scale=8.0))) is None
    assert models.carrier(replace(plain, head=LabelConfig(3, "mean"))) is None
    assert models.carrier(replace(plain, head=PairConfig(8, 1))) is None


def test_one_changed_value_is_another_family() -> None:
    plain = models.family("gpt").preset(VOCAB, 32, 2)
    for change, name in (
        ({"qk_norm": "none"}, "llama"),
        ({"qk_norm": "none", "window": (8,)}, "mistral"),
        ({"qk_norm": "none", "bias": "qkv"}, "qwen2"),
        ({"qk_norm": "none", "mlp": "relu2"}, "arcee"),
    ):
        assert models.carrier(replace(plain, core=replace(plain.core, **change))) == name


@pytest.mark.parametrize("name", models.FAMILIES)
def test_sizes_that_no_family_has_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        models.family(name).preset(VOCAB, 32, 2, depths=3)
    if name not in ("qwen3", "llama", "mistral", "arcee", "gemma3_text", "t5"):
        with pytest.raises(ValueError):
            models.family(name).preset(VOCAB, 32, 2, width=64, heads=3)
