"""Encoder-decoders against transformers, in float64, with every tensor random."""

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
from danlu.nn.network import EncoderDecoder
from danlu.nn.positions import Buckets
from tests.models import pairs
from tests.models.pairs import CONTEXT, Pair, Row, difference, here, there
from tests.models.stock import TOLERANCE, VOCAB, ids, padding

ROWS = {
    "t5-1.0": Row("t5", {"tied": True}, core={"position": Buckets(8, 20)}),
    "t5-1.1": Row("t5", {"head_dim": 24}),
    "t5-1.1-silu": Row("t5", {"hidden": 96}, core={"mlp": "swiglu"}),
    "bart": Row("bart", {}),
    "bart-wide": Row("bart", {"hidden": 96, "heads": 2}),
    "marian": Row("marian", {}),
    "marian-silu": Row("marian", {"heads": 2}, core={"mlp": "silu"}),
}


@pytest.fixture(params=ROWS)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    return pairs.pair(ROWS[request.param], monkeypatch)


def inputs(mask: Tensor, length: int = 24) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    source, target = ids(*mask.shape), ids(len(mask), length, seed=2)
    ours = {"input_ids": source, "segment_ids": mask, "decoder_input_ids": target}
    return ours, {"input_ids": source, "attention_mask": mask, "decoder_input_ids": target}


@pytest.mark.parametrize("form", ["sdpa", "written"])
def test_logits_are_equal(pair: Pair, form: str) -> None:
    """Also where sources are padded on the right."""
    for stack in (pair.ours, pair.ours.encoder):
        stack.core.attention_form = form  # type: ignore[union-attr]
    for mask in (torch.ones(3, CONTEXT, dtype=torch.long), padding("right", 3, 40)):
        ours, theirs = inputs(mask)
        expected = there(pair.theirs, **theirs)
        assert expected.std() >= 0.9
        assert difference(here(pair.ours, **ours), expected) <= TOLERANCE


def test_sources_padded_on_the_left(pair: Pair) -> None:
    """Distances and what stands at a position are as if there were no pads."""
    ours, _ = inputs(padding("left", 3, 40))
    found = here(pair.ours, **ours)
    for row in range(3):
        real = ours["segment_ids"][row] == 1
        alone = there(
            pair.theirs,
            input_ids=ours["input_ids"][row][real][None],
            decoder_input_ids=ours["decoder_input_ids"][row][None],
        )
        assert difference(found[row], alone[0]) <= TOLERANCE


def test_reading_by_pieces_through_the_cache(pair: Pair) -> None:
    """The source is read once; the memory's keys and values are computed once."""
    ours, theirs = inputs(padding("right", 3, 40))
    expected = there(pair.theirs, **theirs)
    cache = Cache(pair.architecture.core, 3, CONTEXT, torch.float64)
    assert isinstance(pair.ours, EncoderDecoder)
    with torch.no_grad():
        first = pair.ours(ours | {"decoder_input_ids": ours["decoder_input_ids"][:, :9]}, cache)
        kept = dict(cache.memory_keys)
        rest = [
            pair.ours({"decoder_input_ids": ours["decoder_input_ids"][:, at : at + 1]}, cache) for at in range(9, 24)
        ]
    assert difference(torch.cat([first, *rest], 1), expected) <= TOLERANCE
    assert all(cache.memory_keys[layer] is both for layer, both in kept.items())


def test_greedy_tokens_are_the_same(pair: Pair) -> None:
    """64 tokens, each through the cache on both sides."""
    source = ids(1, 30)
    theirs: Any = pair.theirs
    said = theirs.generate(
        source, do_sample=False, num_beams=1, max_new_tokens=64, eos_token_id=None, pad_token_id=1,
        decoder_start_token_id=1,
    )  # fmt: skip
    greedy = Sampling(temperature=0.0, max_tokens=64)
    found = list(generate(pair.ours, [1], greedy, end_ids=(), source={"input_ids": source}))
    assert found == said[0, 1:].tolist()


def test_the_loss_and_every_gradient_are_equal(pair: Pair) -> None:
    ours, theirs = inputs(torch.ones(2, 20, dtype=torch.long), 16)
    nn.functional.cross_entropy(
        pair.theirs(**theirs).logits.flatten(0, 1), theirs["decoder_input_ids"].flatten()
    ).backward()
    nn.functional.cross_entropy(pair.ours(ours).flatten(0, 1), ours["decoder_input_ids"].flatten()).backward()
    gradients = {n: p.grad for n, p in pair.ours.named_parameters() if p.grad is not None}
    names = pair.family.LAYOUT.export_weights(gradients, pair.architecture.head)
    for name, p in pair.theirs.named_parameters():
        if p.grad is not None:
            assert difference(names[name], p.grad) <= 1e-7 * max(1.0, float(p.grad.abs().max())), name


def test_any_changed_tensor_is_noticed(pair: Pair) -> None:
    ours, theirs = inputs(torch.ones(1, 16, dtype=torch.long), 16)
    expected = there(pair.theirs, **theirs)
    for name, p in pair.ours.named_parameters():
        if name.endswith(".k.bias"):
            continue  # softmax cancels it: q·b is the same for every key
        kept = p.detach().clone()
        p.data = torch.ones_like(p) if p.ndim == 1 and name.endswith("weight") else torch.zeros_like(p)
        assert difference(here(pair.ours, **ours), expected) > 1e-4, name
        p.data = kept


CHANGES: list[dict[str, Any]] = [
    {"norm_eps": 1e-2}, {"mlp": "another"}, {"mask": "other"}, {"scale": 0.3}, {"position": Buckets(8, 12)}
]  # fmt: skip
CHANGED = [
    (name, change) for name, row in ROWS.items() for change in CHANGES if "position" not in change or row.family == "t5"
]  # others have no distances


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.parametrize(
    ("pair", "change"), CHANGED, ids=lambda each: each if type(each) is str else next(iter(each)), indirect=["pair"]
)
def test_any_changed_value_is_noticed(pair: Pair, change: dict[str, Any], side: str) -> None:
    made = pair.architecture
    assert made.encoder is not None
    core = made.core if side == "decoder" else made.encoder.core
    if isinstance(core.position, Buckets) and "position" in change:
        change = {"position": Buckets(core.position.count, 3 * core.position.longest)}
    change = (
        {"mlp": {"relu": "gelu", "silu": "relu", "gelu": "relu"}.get(core.mlp, "reglu")} if "mlp" in change else change
    )
    change = {"mask": {"full": "causal", "causal": "full"}[core.mask]} if "mask" in change else change
    other = replace(core, **change)
    changed = (
        replace(made, core=other) if side == "decoder" else replace(made, encoder=replace(made.encoder, core=other))
    )
    network = build(changed, torch.Generator()).double().eval()
    network.load_state_dict(pair.ours.state_dict())
    ours, theirs = inputs(torch.ones(1, 40, dtype=torch.long), 40)
    assert difference(here(network, **ours), there(pair.theirs, **theirs)) > 1e-5


def test_our_folder_opens_there_and_theirs_here(pair: Pair, tmp_path: Path) -> None:
    ours, theirs = inputs(padding("right", 2, 20))
    pairs.opens_in_both_directions(pair, tmp_path, lambda model: there(model, **theirs), ours)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("t5", {"feed_forward_proj": "gated-gelu_new"}),
        ("bart", {"normalize_before": True}),
        ("bart", {"activation_function": "tanh"}),
        ("bart", {"encoder_attention_heads": 3}),
        ("bart", {"architectures": ["BartForCausalLM"]}),
        ("marian", {"share_encoder_decoder_embeddings": False}),
        ("marian", {"decoder_vocab_size": 12}),
    ],
)
def test_configs_that_we_do_not_carry_are_refused(family: str, changes: dict[str, Any]) -> None:
    module = models.family(family)
    config = module.to_hf(module.preset(VOCAB, 32, 2), {}) | changes
    with pytest.raises(UserError) as caught:
        module.from_hf(config)
    assert caught.value.code == "E320"
    assert next(iter(changes)) in str(caught.value)


def test_public_bart_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """They call themselves BartModel, lack the prefix and the output's bias, and tell how they were trained."""
    pair = pairs.pair(ROWS["bart"], monkeypatch)
    config = pair.family.to_hf(pair.architecture, {}) | {"architectures": ["BartModel"], "activation_dropout": 0.1}
    assert pair.family.from_hf(config) == pair.architecture
    theirs = {name.removeprefix("model."): tensor for name, tensor in pair.theirs.model.state_dict().items()}  # type: ignore[union-attr]
    found = pair.family.LAYOUT.import_weights(theirs, pair.architecture.head)
    ours = pair.ours.state_dict()
    assert found.keys() == ours.keys()
    assert all(found[name].equal(ours[name]) for name in ours if name != "head.bias")


def test_files_without_an_output_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """They mean zeros."""
    pair = pairs.pair(ROWS["bart"], monkeypatch)
    theirs = dict(pair.theirs.state_dict())
    del theirs["final_logits_bias"]
    assert not pair.family.LAYOUT.import_weights(theirs, pair.architecture.head)["head.bias"].any()
