"""BERT and its kin with every head of theirs against transformers, in float64, with every tensor random."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from danlu import models
from danlu.errors import UserError
from danlu.models import electra, encoder
from danlu.models.architecture import build
from danlu.nn.heads import HeadConfig, JointConfig, LabelConfig
from tests.models import pairs
from tests.models.pairs import CONTEXT, TOKENS, Pair, Row, difference, here, stock_class, there
from tests.models.stock import TOLERANCE, VOCAB, ids, padding, stock_positions

ACTIVATION = {"bert": "tanh", "roberta": "tanh", "distilbert": "relu", "electra": "gelu"}


def heads(family: str) -> dict[str, HeadConfig]:
    hidden = ACTIVATION[family]
    bare = LabelConfig(0, "first", "tanh") if hidden == "tanh" else LabelConfig(0, "each")
    found: dict[str, HeadConfig] = {
        "words": replace(encoder.MASKED, norm_eps=1e-5 if family == "roberta" else 1e-12),
        "labels": LabelConfig(3, "first", hidden),
        "choice": encoder.choice(hidden),
        "tokens": LabelConfig(5, "each"),
        "span": encoder.SPAN,
        "states": bare,
    }
    more = {"bert": {"joint": encoder.JOINT}, "electra": {"replaced": electra.REPLACED}}
    return found | more.get(family, {})


ROWS = {f"{family}-{kind}": Row(family, {}, head) for family in ACTIVATION for kind, head in heads(family).items()}
ROWS["bert-tanh-gelu"] = Row("bert", {"hidden": 96}, LabelConfig(2, "first", "tanh"), {"mlp": "gelu_tanh"})
ROWS["bert-eps"] = Row("bert", {"heads": 2}, LabelConfig(4, "each"), {"norm_eps": 1e-12, "mlp": "relu"})
ROWS["electra-narrow"] = Row("electra", {"table": 24})


@pytest.fixture(params=ROWS)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    return pairs.pair(ROWS[request.param], monkeypatch)


def kinds(tokens: Tensor) -> Tensor:
    """(B, T): the second half of each row is a second segment."""
    return (torch.arange(tokens.shape[1]) >= tokens.shape[1] // 2).long().expand(tokens.shape)


def inputs(pair: Pair, mask: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same rows for us and for the stock model, whose pads are where the mask is 0."""
    tokens = torch.where(mask == 1, ids(*mask.shape), TOKENS["pad_token_id"])
    ours, theirs = {"input_ids": tokens, "segment_ids": mask}, {"input_ids": tokens, "attention_mask": mask}
    name = models.carrier(pair.architecture)
    if pair.architecture.embed.types > 1:
        ours, theirs = ours | {"type_ids": kinds(tokens)}, theirs | {"token_type_ids": kinds(tokens)}
    choice = getattr(pair.architecture.head, "answer", "") == "choice"
    if name != "roberta" and not choice:  # the one counts its positions itself, the other flattens all but them
        theirs |= {"position_ids": stock_positions(mask)}
    if choice:
        theirs = {key: tensor[None] for key, tensor in theirs.items()}  # the candidates of one question
    return ours, theirs


def agree(pair: Pair, mask: Tensor) -> float:
    ours, theirs = inputs(pair, mask)
    expected, found = there(pair.theirs, **theirs), here(pair.ours, **ours)
    if getattr(pair.architecture.head, "answer", "") == "choice":
        expected = expected.T
    if found.ndim == 3 or found.shape == mask.shape:
        expected = expected if expected.ndim == 3 else expected[..., None]
        found, expected = found[mask == 1], expected[mask == 1]
    return difference(found, expected)


def test_answers_are_equal(pair: Pair) -> None:
    whole = torch.ones(3, CONTEXT, dtype=torch.long)
    expected = there(pair.theirs, **inputs(pair, whole)[1])
    assert expected.std() >= (0.5 if expected.numel() > 9 else 0.05)
    for form in ("sdpa", "written"):
        pair.ours.core.attention_form = form
        assert agree(pair, whole) <= TOLERANCE


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(pair: Pair, side: str) -> None:
    """Padded on the left, the stock classes pool a pad: there only the answers of each token are compared."""
    head = pair.architecture.head
    if side == "left" and (not isinstance(head, LabelConfig) or head.pool != "each"):
        pair = pairs.Pair(*_with_tokens_head(pair))
    if not isinstance(pair.architecture.head, JointConfig):
        assert agree(pair, padding(side, 3, 40)) <= TOLERANCE


def _with_tokens_head(pair: Pair) -> tuple[Any, ...]:
    """The same family and shape with labels for each token."""
    made = replace(pair.architecture, head=LabelConfig(3, "each"))
    theirs = pairs.stock(pair.family, made)
    return pairs.network(made, pair.family, theirs), theirs, made, pair.family


def test_any_changed_tensor_is_noticed(pair: Pair) -> None:
    whole = torch.ones(2, 24, dtype=torch.long)
    for name, p in pair.ours.named_parameters():
        if name.endswith(".k.bias"):
            continue  # softmax cancels it: q·b is the same for every key
        kept = p.detach().clone()
        p.data = torch.ones_like(p) if p.ndim == 1 and name.endswith("weight") else torch.zeros_like(p)
        assert agree(pair, whole) > 1e-4, name
        p.data = kept


CHANGES: list[dict[str, Any]] = [{"norm_eps": 1e-2}, {"mlp": "another"}, {"mask": "causal"}, {"scale": 1.0}]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_any_changed_value_is_noticed(pair: Pair, change: dict[str, Any]) -> None:
    if "mlp" in change:
        change = {"mlp": "gelu" if pair.architecture.core.mlp != "gelu" else "relu"}
    changed = replace(pair.architecture, core=replace(pair.architecture.core, **change))
    network = build(changed, torch.Generator()).double().eval()
    network.load_state_dict(pair.ours.state_dict())
    other = replace_network(pair, network)
    assert agree(other, torch.ones(2, 24, dtype=torch.long)) > 1e-6


def replace_network(pair: Pair, network: Any) -> Pair:
    return Pair(network, pair.theirs, pair.architecture, pair.family)


def test_our_folder_opens_there_and_theirs_here(pair: Pair, tmp_path: Path) -> None:
    ours, theirs = inputs(pair, torch.ones(2, 20, dtype=torch.long))
    choice = getattr(pair.architecture.head, "answer", "") == "choice"

    def call(model: nn.Module) -> Tensor:
        found = there(model, **theirs)
        return found.T if choice else found.view_as(here(pair.ours, **ours))

    pairs.opens_in_both_directions(pair, tmp_path, call, ours)


@pytest.mark.parametrize("family", ACTIVATION)
def test_files_of_the_early_days(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms named gamma and beta, the tied table and its bias twice, positions as a tensor, other heads beside."""
    pair = pairs.pair(Row(family, {}, heads(family)["words"]), monkeypatch)
    layout, head = pair.family.LAYOUT, pair.architecture.head
    theirs = layout.export_weights(pair.ours.state_dict(), head)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in theirs.items()
    }
    old |= {copy: theirs[original].clone() for copy, original in layout.copies.items()}
    old |= {layout.ignored[0]: torch.arange(CONTEXT)[None], "qa_outputs.weight": torch.ones(2, 64)}
    back = layout.import_weights(old, head)
    assert back.keys() == pair.ours.state_dict().keys()
    assert all(back[name].equal(tensor) for name, tensor in pair.ours.state_dict().items())
    with pytest.raises(UserError) as caught:
        layout.import_weights(old | {"visual_projection.weight": torch.ones(1)}, head)
    assert caught.value.code == "E321"


@pytest.mark.parametrize("family", ACTIVATION)
def test_a_backbone_without_its_prefix_takes_another_head(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the bare model name tensors without the prefix; with the names of a class they are the same tensors."""
    bare = pairs.pair(Row(family, {}, heads(family)["states"]), monkeypatch)
    layout = bare.family.LAYOUT
    theirs = layout.export_weights(bare.ours.state_dict(), bare.architecture.head)
    assert not any(name.startswith(layout.prefix) for name in theirs)
    found = layout.import_weights(theirs, LabelConfig(3, "each"))
    backbone = {name: tensor for name, tensor in bare.ours.state_dict().items() if not name.startswith("head.")}
    assert found.keys() == backbone.keys()
    assert all(found[name].equal(tensor) for name, tensor in backbone.items())


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"is_decoder": True}),
        ("bert", {"position_embedding_type": "relative_key"}),
        ("bert", {"tie_word_embeddings": False}),
        ("bert", {"hidden_act": "silu"}),
        ("bert", {"num_attention_heads": 3}),
        ("bert", {"architectures": ["BertLMHeadModel"]}),
        ("roberta", {"pad_token_id": None}),
        ("electra", {"summary_type": "mean"}),
        ("distilbert", {"sinusoidal_pos_embds": True}),
    ],
)
def test_configs_that_we_do_not_carry_are_refused(family: str, changes: dict[str, Any]) -> None:
    module = models.family(family)
    config = module.to_hf(module.preset(VOCAB, 32, 2), {}) | changes
    with pytest.raises(UserError) as caught:
        module.from_hf(config)
    assert caught.value.code == ("E329" if None in changes.values() else "E320")
    assert next(iter(changes)) in str(caught.value)


def test_a_sharded_folder_of_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stock class reads from our names it also reads in pieces, with an index."""
    pair = pairs.pair(ROWS["bert-labels"], monkeypatch)
    config = pair.family.to_hf(pair.architecture, TOKENS, dtype="float64")
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(pair.family.LAYOUT.export_weights(pair.ours.state_dict(), pair.architecture.head),
              tmp_path / "model.safetensors", {"format": "pt"})  # fmt: skip
    opened = stock_class(config).from_pretrained(tmp_path, dtype=torch.float64).eval()
    tokens = ids(2, 20)
    assert difference(there(opened, tokens), here(pair.ours, input_ids=tokens)) <= TOLERANCE
