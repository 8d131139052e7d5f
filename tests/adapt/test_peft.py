"""The library peft beside ours: the same adapters give the same logits, and folders pass both ways."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from danlu import adapt, models
from danlu.adapt.fold import merge
from danlu.adapt.lora import LowRank
from danlu.adapt.peft import CONFIG, WEIGHTS, load, save
from danlu.errors import UserError
from danlu.nn.network import Network
from tests.adapt.forms import VOCAB, architecture, trained
from tests.models.pairs import network as converted
from tests.models.pairs import stock
from tests.models.stock import lift

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # peft asks for it
    pytest.mark.filterwarnings("ignore:Unable to fetch remote file"),  # of a base that was never saved
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
]
LIMIT = 1e-8
FORMS = ("gpt", "gpt labels", "gpt2", "gpt2 labels", "bert", "bert labels", "llama", "t5")
LORA: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4, "alpha": 12.0},
    "some": {"rank": 3, "alpha": 3.0, "targets": ["q", "v", "down"]},
    "dora": {"kind": "dora", "rank": 4, "alpha": 6.0},
}


def ids(rows: int = 2, length: int = 12) -> Tensor:
    return torch.randint(2, VOCAB, (rows, length), generator=torch.Generator().manual_seed(4))


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers computes norms and angles in fp32, whatever the weights are; here in float64."""
    for family in ("qwen3", "llama", "t5"):
        lift(monkeypatch, family)


def pair(form: str) -> tuple[Network, Any, Any]:
    """The same float64 network as ours and as transformers', all of it random."""
    shape = architecture(form)
    family = models.family(models.carrier(shape))
    theirs = stock(family, shape)
    return converted(shape, family, theirs), theirs, shape


def drawn(net: torch.nn.Module) -> None:
    """Something in all that is trained."""
    generator = torch.Generator().manual_seed(5)
    for p in net.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)


@torch.no_grad()
def ours(net: Network) -> Tensor:
    asked = {"input_ids": ids()}
    made = net(asked | ({"decoder_input_ids": ids(2, 7)} if hasattr(net, "encoder") else {}))
    return made


@torch.no_grad()
def theirs(model: Any, shape: Any, **more: Tensor) -> Tensor:
    more |= {"decoder_input_ids": ids(2, 7)} if shape.encoder else {}
    return model(input_ids=ids(), attention_mask=torch.ones_like(ids()), **more).logits


def wrapped(model: Any, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it could not look up beside a model that was never saved
        return peft.PeftModel.from_pretrained(model, str(folder)).eval()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LORA)
def test_peft_opens_what_we_save(kind: str, form: str, tmp_path: Path) -> None:
    net, stocked, shape = pair(form)
    plain = ours(net)
    adapt.apply(net, [{"kind": "lora", **LORA[kind]}], 3).double()
    drawn(net)
    save(net, shape, tmp_path, "base")
    model = wrapped(stocked, tmp_path)
    expected = theirs(model, shape)
    assert (ours(net) - expected).abs().max() <= LIMIT
    assert (plain - expected).abs().max() > 0.01
    assert (ours(merge(net)) - expected).abs().max() <= LIMIT


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
def test_we_open_what_peft_saves(options: dict[str, Any], form: str, tmp_path: Path) -> None:
    net, stocked, shape = pair(form)
    targets = {"gpt2": ["c_attn", "c_fc"], "bert": ["query", "value", "intermediate.dense"], "t5": ["q", "v", "wo"]}
    config = peft.LoraConfig(
        r=4, lora_alpha=10, target_modules=targets.get(form.split()[0], ["q_proj", "k_proj", "down_proj"]),
        task_type="SEQ_CLS" if form.endswith("labels") else None, fan_in_fan_out=form.startswith("gpt2"),
        alpha_pattern={r"0\..*": 3}, **options,
    )  # fmt: skip
    model = peft.get_peft_model(stocked, config).eval()
    drawn(model)
    model.save_pretrained(tmp_path)
    net = load(net, shape, tmp_path)
    assert (ours(net) - theirs(model, shape)).abs().max() <= LIMIT
    assert any(isinstance(part, LowRank) for part in net.modules())
    assert (ours(merge(net)) - theirs(model, shape)).abs().max() <= LIMIT


@pytest.mark.parametrize("form", ["gpt", "llama"])
def test_prefixes_pass_both_ways(form: str, tmp_path: Path) -> None:
    net, stocked, shape = pair(form)
    plain = ours(net)
    adapt.apply(net, [{"kind": "prefix", "tokens": 5}], 3).double()
    drawn(net)
    save(net, shape, tmp_path / "ours", "base")
    model = wrapped(stocked, tmp_path / "ours")
    assert (ours(net) - theirs(model, shape)).abs().max() <= 1e-5  # what peft writes and reads is fp32
    assert (ours(net) - plain).abs().max() > 0.01
    drawn(model.prompt_encoder)
    model.save_pretrained(tmp_path / "theirs")
    again = load(pair(form)[0], shape, tmp_path / "theirs")
    assert (ours(again) - theirs(model, shape)).abs().max() <= 1e-5


@pytest.mark.parametrize("form", ["gpt", "gpt2"])
def test_a_prefix_is_pefts_where_the_text_keeps_its_positions(form: str) -> None:
    """peft moves the text by the length of the prefix: given positions from minus that on, it stands where it did."""
    net, stocked, shape = pair(form)
    adapt.apply(net, [{"kind": "prefix", "tokens": 5}], 3).double()
    drawn(net)
    model = peft.get_peft_model(stocked, peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")).double()
    layers = [block.attention.inner for block in net.core.blocks]
    stacked = torch.stack([t.detach() for part in layers for t in (part.prefix_keys, part.prefix_values)])
    model.prompt_encoder["default"].embedding.weight.data = stacked.permute(2, 0, 1, 3).reshape(5, -1)
    places = (torch.arange(12) - 5).expand(2, -1)
    assert (ours(net) - theirs(model.eval(), shape, position_ids=places)).abs().max() <= LIMIT


def test_what_has_no_place_is_refused(tmp_path: Path) -> None:
    net, _, shape = pair("gpt labels")
    for entry, reason in (
        ({"kind": "bottleneck"}, "Narrowed"),
        ({"kind": "prefix"}, "score"),
        ({"kind": "bitfit"}, "none"),
    ):
        made = adapt.apply(pair("gpt labels")[0], [entry], 1)
        with pytest.raises(UserError, match=reason) as caught:
            save(made, shape, tmp_path, "base")
        assert caught.value.code == "E331"
    adapt.apply(net, [{"kind": "lora"}], 1)
    save(net, shape, tmp_path, "base")
    assert {name.split(".")[0] for name in trained(net)} == {"core", "head"}
    tensors = load_file(tmp_path / WEIGHTS)
    save_file(
        {**tensors, "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(8, 64)},
        tmp_path / WEIGHTS,
    )
    with pytest.raises(UserError, match=r"layers\.9") as caught:
        load(pair("gpt labels")[0], shape, tmp_path)
    assert caught.value.code == "E330"
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "VERA"}))
    with pytest.raises(UserError, match="VERA"):
        load(pair("gpt labels")[0], shape, tmp_path)
