"""Both engines on one batch: they agree, and a difference between them is seen where it is."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from danlu.errors import UserError
from danlu.learn import mirror as mirroring
from danlu.learn.mirror import Agreement, batch_of, mirror
from danlu.modalities.text import Text
from danlu.model import Model
from danlu.models import gpt2, qwen3
from danlu.models.architecture import Architecture
from danlu.nn.positions import Rotary
from danlu.scratch import gpt

TEXT = "the quick brown fox jumps over the lazy dog; 炼丹炉里炼金丹。"
SIZES = {"width": 32, "heads": 4, "kv_heads": 2, "head_dim": 16, "hidden": 48}
FORMS: dict[str, Callable[[int], Architecture]] = {
    "tied": lambda vocab: qwen3.preset(vocab, 64, 2, **SIZES),
    "untied": lambda vocab: qwen3.preset(vocab, 64, 2, tied=False, **SIZES),
    "stretched": lambda vocab: _stretched(qwen3.preset(vocab, 64, 1, **SIZES)),
}


def _stretched(form: Architecture) -> Architecture:
    position = Rotary(theta=1e4, scaling="yarn", factor=4.0, original_length=16)
    return replace(form, core=replace(form.core, position=position, norm_eps=1e-4))


@pytest.fixture(scope="module")
def text() -> Text:
    return Text.fit([TEXT] * 4, type="bpe", vocab_size=300)


def model_of(form: str, text: Text) -> Model:
    """Every weight at random, the norms' too."""
    model = Model.from_architecture(FORMS[form](text.vocab_size), text, "language_modeling")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn(p.shape, generator=generator) * 0.2
    return model


def worst(found: list[Agreement]) -> float:
    return max(each.difference for each in found)


@pytest.mark.parametrize("form", FORMS)
def test_both_engines_agree_in_everything(form: str, text: Text) -> None:
    model = model_of(form, text)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    found = mirror(model, batch_of(model, TEXT))
    assert worst(found) <= 1e-11
    gradients = {each.name for each in found if each.kind == "gradient"}
    assert gradients == {name for name, _ in model.net.named_parameters()}
    layers = model.architecture.core.layers
    assert sum(each.kind == "activation" for each in found) == 14 * layers + 2  # and the embedding and the last norm
    assert {each.kind for each in found} == {"loss", "activation", "activation gradient", "gradient"}
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def test_several_texts_in_a_row(text: Text) -> None:
    model = model_of("tied", text)
    batch = batch_of(model, TEXT)
    width = batch["input_ids"].shape[1]
    batch["segment_ids"] = torch.tensor([[1] * 5 + [2] * (width - 7) + [0, 0]])
    batch["labels"] = torch.where(batch["segment_ids"] == 0, -100, batch["labels"])
    assert worst(mirror(model, batch)) <= 1e-11


def test_a_mistake_is_seen(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of one layer differs: what lies before it agrees going forward, what follows does not."""

    def wrong(*given: object) -> gpt.GPT:
        made = right(*given)
        made.blocks[1].mlp.up.weight.data[0, 0] += 1e-3
        return made

    right: Callable[..., gpt.GPT] = mirroring.twin
    monkeypatch.setattr(mirroring, "twin", wrong)
    model = model_of("tied", text)
    found = {each.name: each.difference for each in mirror(model, batch_of(model, TEXT)) if each.kind == "activation"}
    assert found["core.blocks.0"] <= 1e-11 and found["core.blocks.1.attention.inner"] <= 1e-11
    assert found["core.blocks.1.mlp.inner.up"] > 1e-6 and found["core.norm"] > 1e-6


def test_another_form_is_refused(text: Text) -> None:
    model = Model.from_architecture(gpt2.preset(text.vocab_size, 64, 1), text, "language_modeling")
    with pytest.raises(UserError, match="E324"):
        mirror(model, batch_of(model, TEXT))


def test_a_quantized_model_is_refused(text: Text) -> None:
    model = model_of("tied", text)
    model.quantized = "int8"
    with pytest.raises(UserError, match="E324"):
        mirror(model, batch_of(model, TEXT))
