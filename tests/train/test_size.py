"""The one dial: how deep a model a training can feed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from danlu import models
from danlu.config import ModelSection, Train
from danlu.data.loader import Shape
from danlu.models.architecture import build
from danlu.train import cost, sides, size, trial

VOCAB = 7000


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of a known rate."""
    monkeypatch.setattr(cost, "peak", lambda precision, where="cpu": {"bf16": 1.6e12, "fp32": 2.7e11}[precision])
    monkeypatch.setattr(trial, "share", lambda precision, where="cpu": 0.2)


def depth(tokens=10**9, **length):
    return size.depth_for(ModelSection(arch="qwen3"), Train(**length), VOCAB, tokens)


def test_a_longer_training_gets_a_deeper_model():
    depths = [depth(budget=budget) for budget in ("20s", "1min", "3min", "1h", "1d")]
    assert depths == sorted(depths) and depths[0] == 2 and depths[2] == 3 and depths[-1] > 6


def test_each_depth_but_the_least_sees_a_token_per_weight():
    for tokens in (10**5, 10**6, 10**7, 10**8):
        chosen = size.depth_for(ModelSection(arch="qwen3"), Train(tokens=tokens), VOCAB, 10**9)
        weights = size._weights(ModelSection(arch="qwen3"), VOCAB, chosen)
        deeper = size._weights(ModelSection(arch="qwen3"), VOCAB, chosen + 1)
        assert chosen == 2 or tokens >= weights
        assert tokens < 2 * deeper


def test_more_time_over_few_data_makes_no_deeper_model():
    assert depth(tokens=200_000, budget="1d") == depth(tokens=200_000, budget="2d") < depth(budget="1d")


def test_a_machine_that_gains_nothing_from_bf16_gets_a_smaller_model(monkeypatch):
    fast = depth(budget="10min")
    monkeypatch.setattr(cost, "peak", lambda precision, where="cpu": 2.7e11)
    assert depth(budget="10min") < fast


def test_a_machine_whose_steps_come_nearer_to_its_peak_gets_a_deeper_model(monkeypatch):
    slow = depth(budget="10min")
    monkeypatch.setattr(trial, "share", lambda precision, where="cpu": 0.8)
    assert depth(budget="10min") > slow


def test_what_an_encoder_costs_makes_its_model_less_deep():
    """Both stacks are trained, and most tokens pass the encoder."""
    one, two = ModelSection(arch="qwen3"), ModelSection(arch="t5")
    spans = size.Learned("span_denoising")
    for budget in ("10min", "1h"):
        asked = (Train(budget=budget), VOCAB, 10**9, "cpu")
        assert size.depth_for(two, *asked, spans) < size.depth_for(one, *asked)
    weights, few = size._cost(two, VOCAB, 6, spans)
    assert weights > 2 * size._weights(one, VOCAB, 6)
    assert size._cost(two, VOCAB, 6, size.Learned("span_denoising", {"share": 0.6}))[1] > 1.05 * few  # more is written


@pytest.mark.parametrize(("arch", "learned"), [("t5", "span_denoising"), ("bart", "translation")])
def test_the_operations_of_a_step_are_those_that_torch_counts(arch, learned):
    """Of a step of the task itself. torch counts the causal half of scores that need no computing as well."""
    shape = models.preset(arch, 500, 64, 2)
    net = build(shape, torch.Generator().manual_seed(1)).train()
    task, _ = trial.stands_in(learned, shape, 500, 64, {})
    batch = task.corrupt(trial.Synthetic(64, 500, 640).train(0, 0, Shape(8, 1)), torch.Generator().manual_seed(1))
    net.core.attention_form = net.encoder.core.attention_form = "written"
    with FlopCounterMode(display=False) as counter:
        task.loss(net, batch)["loss"].backward()
    taken = {"source": batch["input_ids"].shape[1], "target": batch["decoder_input_ids"].shape[1]}
    assert 8 * sides.flops(net, **taken) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_the_share_is_measured_once_and_remembered(monkeypatch, tmp_path):
    monkeypatch.undo()  # the real machine
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    trial.share.cache_clear()
    first = trial.share("fp32")
    monkeypatch.setattr(trial, "_share", lambda precision, where: pytest.fail("measured again"))
    trial.share.cache_clear()
    assert trial.share("fp32") == first
    assert 0.02 < first < 1
    trial.share.cache_clear()


def test_labels_feed_four_layers_at_most():
    asked = (ModelSection(arch="bert"), Train(epochs=3.0), VOCAB, 10**10)
    assert size.depth_for(*asked, learned=size.Learned("text_classification")) == 4
    assert size.depth_for(*asked, learned=size.Learned("masked_language_modeling")) > 10
