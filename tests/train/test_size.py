"""The one dial: how deep a model a training can feed."""

import pytest

from danlu.config import ModelSection, Train
from danlu.train import cost, size, trial

VOCAB = 7000


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of a known rate."""
    monkeypatch.setattr(cost, "peak", lambda precision, where="cpu": {"bf16": 1.6e12, "fp32": 2.7e11}[precision])
    monkeypatch.setattr(trial, "share", lambda precision, where="cpu": 0.2)


def depth(tokens=10**9, **length):
    return size.depth_for(ModelSection(), Train(**length), VOCAB, tokens)


def test_a_longer_training_gets_a_deeper_model():
    depths = [depth(budget=budget) for budget in ("20s", "1min", "3min", "1h", "1d")]
    assert depths == sorted(depths) and depths[0] == 2 and depths[2] == 3 and depths[-1] > 6


def test_each_depth_but_the_least_sees_a_token_per_weight():
    for tokens in (10**5, 10**6, 10**7, 10**8):
        chosen = size.depth_for(ModelSection(), Train(tokens=tokens), VOCAB, 10**9)
        weights = size._weights(ModelSection(), VOCAB, chosen)
        deeper = size._weights(ModelSection(), VOCAB, chosen + 1)
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
