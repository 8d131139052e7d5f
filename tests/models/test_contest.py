"""ELECTRA and its generator: drawn as the generator says, counted as written out, and two models after training."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from danlu.modalities.text import Text
from danlu.model import Model
from danlu.models import electra
from danlu.nn.losses import IGNORE
from danlu.randomness import generator
from tests.tiny_life import sentences

TASK = "replaced_token_detection"


@pytest.fixture(scope="module")
def model() -> Model:
    """An ELECTRA of two heads with a generator of one, every parameter random, in float64."""
    text = Text.fit(sentences(100), type="wordpiece", vocab_size=200)
    shape = electra.preset(text.vocab_size, 32, 2, width=64, heads=2, hidden=96)
    made = Model.from_architecture(shape, text, TASK, options={"generator": 0.5, "share": 0.5})
    noise = torch.Generator().manual_seed(2)
    for parameter in made.net.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=noise), alpha=0.1)
    return made.double().eval()


def batch(model: Model, rows: int = 6) -> dict[str, Tensor]:
    made = model.processor.collate([model.task.encode({"text": each}) for each in sentences(rows)])
    return model.task.corrupt(made, generator(1, "corrupt"))


@torch.no_grad()
def test_losses_are_those_written_out(model: Model) -> None:
    net: Any = model.net
    given = batch(model, 60)
    hidden, real = given["labels"] != IGNORE, given["segment_ids"] > 0
    logits = net.words(net.proposed(given))
    filled = given["input_ids"].clone()
    for row, at in hidden.nonzero().tolist():
        sums = logits[row, at].softmax(-1).cumsum(-1)
        filled[row, at] = int((sums <= given["chance"][row, at] * sums[-1]).sum())
    told = net({**given, "input_ids": filled}).squeeze(-1)
    replaced = hidden & (filled != given["labels"])
    assert bool(replaced.any())
    assert bool((hidden & ~replaced).any())
    found = model.task.loss(net, given)
    words = F.cross_entropy(logits[hidden], given["labels"][hidden], reduction="sum")
    doubt = F.binary_cross_entropy_with_logits(told[real], replaced[real].double(), reduction="sum")
    assert float(found["loss"]) == pytest.approx(float(words), rel=1e-12)
    assert float(found["replaced"]) == pytest.approx(50 * float(doubt), rel=1e-12)
    assert {name: int(count) for name, count in model.task.counts(given).items()} == {
        "loss": int(hidden.sum()),
        "replaced": int(real.sum()),
    }


def test_tokens_are_drawn_as_likely_as_the_generator_holds_them(model: Model) -> None:
    net: Any = model.net
    state = torch.randn(1, net.words.dense.out_features, generator=torch.Generator().manual_seed(1)).double()
    shares = F.linear(state, net.words.weight, net.words.bias).softmax(-1)[0].detach()
    many = 200_000
    chances = torch.rand(many, generator=torch.Generator().manual_seed(3))
    drawn = torch.cat([*model.task._drawn(net.words, state.expand(many, -1), chances)])  # type: ignore[attr-defined]
    found = torch.bincount(drawn, minlength=len(shares)) / many
    assert float((found - shares).abs().max()) < 4 * (0.25 / many) ** 0.5


def test_the_generator_learns_nothing_from_what_is_told_of_its_tokens(model: Model) -> None:
    net: Any = model.net
    loss = model.task.loss(net, batch(model))["replaced"]
    own = [*net.encoder.core.parameters(), *net.words.parameters()]
    grads = torch.autograd.grad(loss, [*own, net.embed.tokens.weight], allow_unused=True)
    assert all(each is None for each in grads[:-1])
    assert grads[-1] is not None
    assert bool(grads[-1].any())


def test_both_open_elsewhere(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    given = batch(model)
    ids, mask = given["input_ids"], (given["segment_ids"] > 0).long()
    real, net = mask.bool(), Model.from_pretrained(tmp_path).net.double()
    assert type(net).__name__ == "Contest"
    told = transformers.ElectraForPreTraining.from_pretrained(tmp_path).double().eval()
    words = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "generator").double().eval()
    with torch.no_grad():
        theirs = told(input_ids=ids, attention_mask=mask).logits
        proposed = words(input_ids=ids, attention_mask=mask).logits
        assert float((net(given).squeeze(-1) - theirs)[real].abs().max()) < 1e-8
        assert float((net.words(net.proposed(given)) - proposed)[real].abs().max()) < 1e-8


def test_what_was_saved_goes_on_as_before_and_on_to_another_task(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    opened, given = Model.from_pretrained(tmp_path).double(), batch(model)
    before = {name: tensor.float() for name, tensor in model.net.state_dict().items()}
    assert opened.net.state_dict().keys() == before.keys()
    assert all(tensor.float().equal(before[name]) for name, tensor in opened.net.state_dict().items())
    losses = [each.task.loss(each.net, given)["loss"].detach() for each in (model, opened)]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-6)  # the folder holds fp32
    tuned = opened.for_task("text_classification", 1, ["bad", "good"])
    assert type(tuned.net).__name__ == "Network"
    assert tuned.net.core is opened.net.core
    tuned.save_pretrained(tmp_path / "tuned")
    assert transformers.ElectraForSequenceClassification.from_pretrained(tmp_path / "tuned").config.num_labels == 2
    words = tuned.for_task("masked_language_modeling", 1)
    assert words.net.head.weight is words.net.embed.tokens.weight
