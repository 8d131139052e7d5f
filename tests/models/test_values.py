"""Every other value of TransformerConfig against the stock model that has it, in float64 with random tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

from danlu import models
from danlu.models import foreign, qwen3
from danlu.models.architecture import Architecture, build
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig
from danlu.nn.network import Network
from danlu.nn.positions import Buckets, Rotary
from danlu.nn.transformer import Transformer
from tests.models.stock import TOLERANCE, VOCAB, ids, lift, logits, padding, randomised, stock_positions

SIZES: dict[str, Any] = {"dim": 64, "layers": 3, "heads": 4, "kv_heads": 4, "head_dim": 16, "hidden": 96}
THEIR_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
UNTIED = VocabularyConfig(tied=False)
BLOCK = "core.blocks.{n}"
LINEARS = {f"{BLOCK}.attention.inner.{x}": f"model.layers.{{n}}.self_attn.{x}_proj" for x in "qkvo"}
LLAMA = {**qwen3.NAMES, **{f"{ours}.bias": f"{theirs}.bias" for ours, theirs in LINEARS.items()}}
GEMMA = {
    **{ours: theirs for ours, theirs in LLAMA.items() if ours != "head.output.weight"},
    f"{BLOCK}.attention.after.weight": "model.layers.{n}.post_attention_layernorm.weight",
    f"{BLOCK}.mlp.norm.weight": "model.layers.{n}.pre_feedforward_layernorm.weight",
    f"{BLOCK}.mlp.after.weight": "model.layers.{n}.post_feedforward_layernorm.weight",
}


def with_biases(modules: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{leaf}": f"{theirs}.{leaf}" for ours, theirs in modules.items() for leaf in ("weight", "bias")}


BERT = with_biases(
    {
        **{
            f"{BLOCK}.attention.inner.{x[0]}": f"bert.encoder.layer.{{n}}.attention.self.{x}"
            for x in ("query", "key", "value")
        },
        f"{BLOCK}.attention.inner.o": "bert.encoder.layer.{n}.attention.output.dense",
        f"{BLOCK}.attention.norm": "bert.encoder.layer.{n}.attention.output.LayerNorm",
        f"{BLOCK}.mlp.inner.up": "bert.encoder.layer.{n}.intermediate.dense",
        f"{BLOCK}.mlp.inner.down": "bert.encoder.layer.{n}.output.dense",
        f"{BLOCK}.mlp.norm": "bert.encoder.layer.{n}.output.LayerNorm",
        "embed.norm": "bert.embeddings.LayerNorm",
        "head.dense": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
    }
) | {
    "embed.tokens.weight": "bert.embeddings.word_embeddings.weight",
    "embed.positions.weight": "bert.embeddings.position_embeddings.weight",
    "embed.types.weight": "bert.embeddings.token_type_embeddings.weight",
    "head.bias": "cls.predictions.bias",
}


@dataclass
class Case:
    """A stock model and ours with the same values; `values` change SIZES."""

    stock: Any
    config: Any
    names: Mapping[str, str]
    values: dict[str, Any]
    embed: TokensConfig = field(default_factory=lambda: TokensConfig(VOCAB))
    head: VocabularyConfig = UNTIED
    ignored: tuple[str, ...] = ()


def rope(theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_theta": theta, "rope_type": "default", **more}


CASES = {
    "llama": Case(
        hf.LlamaForCausalLM,
        hf.LlamaConfig(**THEIR_SIZES, num_key_value_heads=2, rms_norm_eps=1e-5, rope_parameters=rope(5e3)),
        LLAMA,
        {"kv_heads": 2, "norm_eps": 1e-5, "position": Rotary(5e3)},
    ),
    "mistral: a window": Case(
        hf.MistralForCausalLM,
        hf.MistralConfig(**THEIR_SIZES, num_key_value_heads=1, sliding_window=5, rope_parameters=rope(1e4)),
        LLAMA,
        {"kv_heads": 1, "window": (5,)},
    ),
    "qwen2: biases on q, k, v": Case(
        hf.Qwen2ForCausalLM,
        hf.Qwen2Config(**THEIR_SIZES, num_key_value_heads=2, rope_parameters=rope(1e4)),
        LLAMA,
        {"kv_heads": 2, "bias": "qkv"},
    ),
    "arcee: squared relu": Case(
        hf.ArceeForCausalLM,
        hf.ArceeConfig(**THEIR_SIZES, num_key_value_heads=4, rms_norm_eps=1e-5, rope_parameters=rope(1e4)),
        LLAMA,
        {"mlp": "relu2", "norm_eps": 1e-5},
    ),
    "gemma3: norms around, weights minus one, two thetas, windows": Case(
        hf.Gemma3ForCausalLM,
        hf.Gemma3TextConfig(
            **THEIR_SIZES,
            num_key_value_heads=2,
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=5,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "sliding_attention": rope(1e4),
                "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
            },
        ),
        GEMMA,
        {
            "kv_heads": 2,
            "norm": "rms1",
            "placement": "sandwich",
            "mlp": "geglu_tanh",
            "qk_norm": "head",
            "scale": 24**-0.5,
            "window": (5, 0),
            "position": Rotary(1e6, local_theta=1e4, scaling="linear", factor=8.0),
        },
        TokensConfig(VOCAB, scale=8.0),
        VocabularyConfig(),
        ignored=("lm_head.weight",),
    ),
    "bert: norms after, full attention, types, a head of its own": Case(
        hf.BertForMaskedLM,
        hf.BertConfig(**THEIR_SIZES, layer_norm_eps=1e-12),
        BERT,
        {
            "norm": "layer",
            "norm_eps": 1e-12,
            "placement": "post",
            "bias": "all",
            "mlp": "gelu",
            "position": None,
            "mask": "full",
        },
        TokensConfig(VOCAB, positions=64, types=2, norm="layer"),
        VocabularyConfig(bias="all", transform="gelu"),
        ignored=("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"),
    ),
}


def build_both(case: Case) -> tuple[Network, nn.Module]:
    theirs = randomised(case.stock(case.config))
    core = TransformerConfig(**(SIZES | case.values))
    ours = build(Architecture(core, case.embed, case.head, 64), torch.Generator()).double().eval()
    ours.load_state_dict(foreign.renamed(theirs.state_dict(), foreign.inverted(case.names), case.ignored))
    return ours, theirs


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    lift(monkeypatch, "llama", "mistral", "qwen2", "arcee")
    monkeypatch.setattr(Gemma3RMSNorm, "forward", lambda norm, x: norm._norm(x) * (1.0 + norm.weight))
    return CASES[request.param]


@pytest.mark.parametrize("form", ["sdpa", "written"])
def test_logits_are_equal(case: Case, form: str) -> None:
    ours, theirs = build_both(case)
    ours.core.attention_form = form
    tokens = ids(2, 40)
    expected = logits(theirs, tokens)
    assert expected.std() >= 1
    assert (logits(ours, {"input_ids": tokens}) - expected).abs().max() <= TOLERANCE
    mask = padding("left", 2, 40)
    expected = logits(theirs, tokens, attention_mask=mask, position_ids=stock_positions(mask))[mask == 1]
    found = logits(ours, {"input_ids": tokens, "segment_ids": mask})[mask == 1]
    assert (found - expected).abs().max() <= TOLERANCE


def test_every_value_matters(case: Case) -> None:
    """Left at its default, a value that the case sets gives other logits (or other tensors)."""
    ours, _ = build_both(case)
    tokens = {"input_ids": ids(1, 40)}
    for name in set(case.values) - {"kv_heads", "bias", "norm", "placement", "qk_norm"}:
        if name == "mlp" and case.values["mlp"] in ("relu2", "gelu"):  # the default has a third matrix
            continue
        default = {name: TransformerConfig.__dataclass_fields__[name].default}
        changed = build(
            Architecture(replace(ours.core.config, **default), case.embed, case.head, 64), torch.Generator()
        )
        changed.double().load_state_dict(ours.state_dict())
        moved = (logits(changed.eval(), tokens) - logits(ours, tokens)).abs().max()
        assert moved > (1e-9 if name == "norm_eps" else 1e-3), name


T5 = {
    **{f"blocks.{{n}}.attention.inner.{x}.weight": f"block.{{n}}.layer.0.SelfAttention.{x}.weight" for x in "qkvo"},
    **{f"blocks.{{n}}.across.inner.{x}.weight": f"block.{{n}}.layer.1.EncDecAttention.{x}.weight" for x in "qkvo"},
    "blocks.{n}.attention.norm.weight": "block.{n}.layer.0.layer_norm.weight",
    "blocks.{n}.across.norm.weight": "block.{n}.layer.1.layer_norm.weight",
    "distances.table.weight": "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "norm.weight": "final_layer_norm.weight",
}


@pytest.mark.parametrize("mlp", ["relu", "geglu_tanh"])
def test_t5_encoder_and_decoder(mlp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bucketed distances, unscaled scores, and a decoder that attends to the encoder's padded states."""
    lift(monkeypatch, "t5")
    kind = "relu" if mlp == "relu" else "gated-gelu"
    config = hf.T5Config(
        vocab_size=VOCAB, d_model=64, d_kv=16, d_ff=96, num_layers=3, num_heads=4, feed_forward_proj=kind,
        relative_attention_num_buckets=8, relative_attention_max_distance=20, decoder_start_token_id=0,
    )  # fmt: skip
    theirs = randomised(hf.T5Model(config))
    assert isinstance(theirs, hf.T5Model)
    for side in (theirs.encoder, theirs.decoder):  # unscaled scores: keep them near 1, or softmax is only an argmax
        for name, p in side.named_parameters():
            if name.endswith("Attention.q.weight"):
                p.data *= 0.2
    values = SIZES | {"mlp": mlp, "position": Buckets(8, 20), "scale": 1.0}
    encoder = _t5_stack(theirs.encoder.state_dict(), TransformerConfig(**values, mask="full"), 1)
    decoder = _t5_stack(theirs.decoder.state_dict(), TransformerConfig(**values, memory=64), 2)
    source, mask, target = ids(2, 30), padding("right", 2, 30), ids(2, 24, seed=2)
    with torch.no_grad():
        expected = theirs(input_ids=source, attention_mask=mask, decoder_input_ids=target)
        reach = (mask == 1)[:, None, None]
        memory = encoder(theirs.shared(source), mask=reach)
        found = decoder(theirs.shared(target), memory=memory, memory_mask=reach)
    real = mask == 1
    assert (memory - expected.encoder_last_hidden_state)[real].abs().max() <= TOLERANCE
    assert expected.last_hidden_state.std() > 0.5
    assert (found - expected.last_hidden_state).abs().max() <= TOLERANCE


def _t5_stack(state: dict[str, Tensor], config: TransformerConfig, mlp_layer: int) -> Transformer:
    feed = f"block.{{n}}.layer.{mlp_layer}"
    up = "wi" if config.mlp == "relu" else "wi_1"
    names = T5 | {
        "blocks.{n}.mlp.norm.weight": f"{feed}.layer_norm.weight",
        "blocks.{n}.mlp.inner.gate.weight": f"{feed}.DenseReluDense.wi_0.weight",
        "blocks.{n}.mlp.inner.up.weight": f"{feed}.DenseReluDense.{up}.weight",
        "blocks.{n}.mlp.inner.down.weight": f"{feed}.DenseReluDense.wo.weight",
    }
    table = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    rest = {name: tensor for name, tensor in state.items() if name not in (table, "embed_tokens.weight")}
    transformer = Transformer(config).double().eval()
    transformer.load_state_dict(
        {**foreign.renamed(rest, foreign.inverted(names)), "distances.table.weight": state[table]}
    )
    return transformer


def test_what_has_no_carrier_is_said() -> None:
    """None is the answer for a core that no stock family holds."""
    plain = models.family("gpt").preset(VOCAB, 32, 2)
    assert models.carrier(plain) == "qwen3"
    assert models.carrier(models.family("gpt2").preset(VOCAB, 32, 2)) == "gpt2"
    for change in (
        {"mlp": "relu2"},
        {"qk_norm": "none"},
        {"window": (8,)},
        {"placement": "sandwich"},
        {"position": Buckets()},
    ):
        assert models.carrier(replace(plain, core=replace(plain.core, **change))) is None
    assert models.carrier(replace(plain, embed=replace(plain.embed, scale=8.0))) is None
