"""The tiny GPT of NumPy and danlu's own training: the same weights, rows and optimizer, the same losses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from danlu.config import Train
from danlu.data.columns import Columns, ColumnWriter
from danlu.data.loader import Loader, Shape
from danlu.learn.mirror import ours
from danlu.modalities.text import Text
from danlu.models import qwen3
from danlu.models.architecture import Architecture, build
from danlu.nn.positions import Rotary as Angles
from danlu.nn.positions import inverse_frequencies
from danlu.scratch import gpt, optim
from danlu.scratch.losses import IGNORE, cross_entropy
from danlu.scratch.positions import Rotary
from danlu.scratch.schedule import warm_stable_decay
from danlu.tasks.language_modeling import LanguageModeling
from danlu.train.events import Stepped
from danlu.train.loop import Training
from tests.conftest import ROOT
from tests.scratch.gradients import check_parameters, randomise, rng
from tests.train.tiny import PLAN

CONTEXT, STEPS = 32, 100
LR, DECAY = 0.01, 0.1


def real_text(folder: Path) -> tuple[Text, Loader]:
    """The licence beside this project: real sentences on every machine; several paragraphs share a row."""
    paragraphs = (ROOT / "LICENSE").read_text("utf-8").split("\n\n")
    text = Text.fit(paragraphs, type="char", vocab_size=320)
    writer = ColumnWriter(folder, {"input_ids": "uint16"})
    for paragraph in paragraphs:
        writer.add({"input_ids": np.array([text.end_id, *text.encode(paragraph), text.end_id])})
    writer.close()
    return text, Loader(Columns(folder), CONTEXT, long="split", seed=5)


def pair(vocab: int, tied: bool) -> tuple[Architecture, nn.Module, gpt.GPT]:
    """danlu's network and its twin, equal in every weight."""
    sizes = {"width": 16, "heads": 4, "kv_heads": 2, "head_dim": 8, "hidden": 32}
    form = qwen3.preset(vocab, CONTEXT, 2, tied=tied, **sizes)
    net = build(form, torch.Generator().manual_seed(3)).double().train()
    # danlu turns by angles in fp32, as all models of this form do; here both engines are asked for all digits.
    net.core._frequencies = {0: torch.from_numpy(Rotary(8, qwen3.THETA).frequencies)}
    other = gpt.GPT(gpt.Shape(vocab, 16, 2, 4, 2, 8, 32, qwen3.THETA, form.core.norm_eps, tied), rng())
    other.load({ours(name): p.detach().numpy() for name, p in net.named_parameters()})
    return form, net, other


def danlus(net: nn.Module, text: Text, loader: Loader, train: Train) -> list[float]:
    """The losses of danlu's own loop."""
    plan = replace(PLAN, steps=STEPS, evaluate_every=STEPS, context=CONTEXT, lr=LR, weight_decay=DECAY, dropout=0.0)
    training = Training(LanguageModeling(text), net, train, plan, seed=9)
    return [event.loss for event in training.events(loader, None) if isinstance(event, Stepped)]


def numpys(net: gpt.GPT, loader: Loader, train: Train) -> list[float]:
    """The losses of the same steps in the engine of NumPy, with a loop of its own."""
    parameters = list(net.parameters().values())
    optimizer, losses = optim.AdamW(parameters, train.beta1, train.beta2, DECAY), []
    for step in range(STEPS):
        parts = [loader.train(step, k, Shape(PLAN.rows, PLAN.accumulate)) for k in range(PLAN.accumulate)]
        arrays = [{name: tensor.numpy() for name, tensor in part.items()} for part in parts]
        counted = [int((part["labels"] != IGNORE).sum()) for part in arrays]
        optimizer.zero()
        losses.append(0.0)
        for part, count in zip(arrays, counted, strict=True):
            segments = part["segment_ids"]
            logits = net(part["input_ids"], part["position_ids"], segments[:, :, None] == segments[:, None, :])
            loss = cross_entropy(logits.reshape(-1, logits.shape[-1]), part["labels"].reshape(-1))
            loss = loss * (count / sum(counted))  # a mean over the whole step, never a mean of means
            loss.backward()
            losses[-1] += float(loss.data)
        optim.clip(parameters, train.clip)
        optimizer.step(LR * warm_stable_decay(step, STEPS, round(train.warmup * STEPS), round(train.decay * STEPS)))
    return losses


@pytest.mark.parametrize("tied", [True, False])
def test_a_hundred_steps_have_the_losses_of_danlus_own_training(tied: bool, tmp_path: Path) -> None:
    text, loader = real_text(tmp_path)
    train = Train(optimizer="adamw", steps=STEPS)
    _, net, other = pair(text.vocab_size, tied)
    expected, found = danlus(net, text, loader, train), numpys(other, loader, train)
    assert len(expected) == len(found) == STEPS
    assert expected[-1] < 0.8 * expected[0]  # it learns
    assert np.abs(np.subtract(found, expected)).max() <= 1e-9


def test_every_gradient_of_a_gpt_by_differences() -> None:
    net = gpt.GPT(gpt.Shape(7, 6, 2, 2, 1, 4, 5), rng())
    randomise(net)  # at first the embedding is so small that a difference of 1e-5 is large beside it
    ids, segments = np.array([[1, 2, 3, 1], [0, 6, 5, 4]]), np.array([[1, 1, 2, 2], [1, 1, 1, 1]])
    check_parameters(net, ids, np.array([[0, 1, 0, 1], [0, 1, 2, 3]]), segments[:, :, None] == segments[:, None, :])


def test_rotary_frequencies_are_danlus_up_to_rounding() -> None:
    theirs = inverse_frequencies(Angles(theta=1e6), 64, local=False)
    assert np.allclose(Rotary(64, 1e6).frequencies, theirs, rtol=1e-6, atol=0)
