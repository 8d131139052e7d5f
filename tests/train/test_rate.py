"""The rate that is chosen where a recipe leaves it open follows what is trained, and how wide it is."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from danlu import BertForSequenceClassification, models
from danlu.config import Train
from danlu.models import architecture
from danlu.train import usual
from danlu.train.plan import Request
from tests.api import bert

pytestmark = pytest.mark.usefixtures("steady")
QUICK: dict[str, Any] = {"steps": 1, "batch_tokens": 256, "precision": "fp32", "threads": 1, "quiet": True}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("rate")
    return {width: bert.folder(root / str(width), hidden_size=width) for width in (32, 256)}


@pytest.mark.parametrize(
    ("width", "wish", "rate"),
    [
        (256, {}, 2.3e-4),  # 0.06 / 256
        (256, {"tune": "head"}, 1e-3),
        (256, {"tune": "lora"}, 1e-3),
        (256, {"tune": "prefix"}, 1e-2),
        (256, {"optimizer": "sgd"}, 0.02),
        (256, {"lr": 3e-5}, 3e-5),
        (32, {}, 1e-3),  # never above what is usual
    ],
)
def test_a_wide_network_that_is_tuned_whole_has_a_small_rate(
    bases: dict[int, Path], width: int, wish: dict[str, Any], rate: float
) -> None:
    history = BertForSequenceClassification.from_pretrained(bases[width]).fit(bert.rows(30), **{**QUICK, **wish})
    assert history.plan["lr"] == rate


@pytest.mark.parametrize(
    ("wish", "said"),
    [({"lr": 3e-3}, True), ({"lr": 5e-4}, False), ({}, False), ({"lr": 3e-3, "tune": "lora"}, False)],
)
def test_a_rate_for_random_weights_is_told(
    bases: dict[int, Path], wish: dict[str, Any], said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    how = QUICK | {"quiet": False} | wish
    BertForSequenceClassification.from_pretrained(bases[256]).fit(bert.rows(30), **how)
    told = capsys.readouterr()
    assert ("lr = 0.003 may make a pretrained network forget: all of one like this is usually tuned at 0.00023" in
            told.out + told.err) == said  # fmt: skip


FIRST = [
    ("gpt", 0.03),
    ("cnn", 0.03),
    ("textcnn", 0.03),
    ("vit", 0.005),
    ("ijepa", 0.005),
    ("resnet", 0.03),
    ("roberta", 0.005),
    ("electra", 0.005),
    ("t5", 0.005),
]


@pytest.mark.parametrize(("family", "rate"), FIRST)
def test_norms_behind_sums_and_encoder_decoders_begin_slowly(family: str, rate: float) -> None:
    net = architecture.empty(models.preset(family, 64, 16, 1))
    request = Request(SimpleNamespace(judges=False), Train(), None, None, "random", 0.0)  # type: ignore[arg-type]
    assert usual.rate(request, net, "muon") == rate
    labelled = replace(request, task=SimpleNamespace(judges=True))  # type: ignore[arg-type]
    assert usual.rate(labelled, net, "muon") == (rate if family in ("t5", "vit", "ijepa") else 0.03)


@pytest.mark.parametrize(("rows", "chosen"), [(64, "adamw"), (4096, "muon")])
def test_muon_is_left_where_it_would_take_longer_than_the_step(rows: int, chosen: str) -> None:
    """Of few pictures through wide layers; and AdamW tunes in any case."""
    net = architecture.empty(models.preset("mlp", 0, 1, 2, image=28, channels=1))
    plan: Any = SimpleNamespace(source=0, rows=rows, accumulate=1, context=1)
    request = Request(SimpleNamespace(judges=True), Train(), None, None, "random", 0.0)  # type: ignore[arg-type]
    assert usual.optimizer(request, net, plan) == chosen
    assert usual.optimizer(replace(request, begins="trained"), net, plan) == "adamw"


@pytest.mark.parametrize(("rows", "block"), [(16, 128), (64, 128), (128, 256), (1024, 0)])
def test_muon_takes_wide_filters_in_blocks_where_whole_they_would_cost_much(rows: int, block: int) -> None:
    """Of a step of 64 pictures through a ResNet-18, 213 GFLOP, whole matrices would take 104 more, blocks of 128 29."""
    net = architecture.empty(models.preset("resnet", 0, 1, image=32, channels=3, **models.family("resnet").SIZES["18"]))
    assert usual.block(net, SimpleNamespace(source=0, rows=rows, accumulate=1, context=1)) == block  # type: ignore[arg-type]


TUNED = [(1, "trained", 1.2e-4), (0, "pretrained", 1.2e-4), (0, "trained", 1e-3), (1, "pretrained", 1.2e-4)]


@pytest.mark.parametrize(("judges", "begins", "rate"), TUNED)
def test_what_was_pretrained_elsewhere_is_tuned_with_care(judges: int, begins: Any, rate: float) -> None:
    net = architecture.empty(models.preset("gpt", 64, 16, 8))
    request = Request(SimpleNamespace(judges=bool(judges)), Train(), None, None, begins, 0.0)  # type: ignore[arg-type]
    assert usual.rate(request, net, "adamw") == rate
    for name, each in net.named_parameters():
        each.requires_grad_("blocks.7" in name)
    assert usual.rate(request, net, "adamw") == rate, "also where its last layer alone is"
    for name, each in net.named_parameters():
        each.requires_grad_("blocks" not in name)
    assert usual.rate(request, net, "adamw") == 1e-3


def test_sgd_decays_as_is_usual_beside_its_rate() -> None:
    request = Request(SimpleNamespace(judges=True), Train(), None, None, "random", 0.0)  # type: ignore[arg-type]
    assert (usual.decay(request, "sgd"), usual.decay(request, "muon")) == (5e-4, 0.05)


@pytest.mark.parametrize(
    ("train", "few", "task", "tokens"),
    [
        ({"epochs": 1}, True, {}, 512),
        ({"epochs": 12}, True, {}, 1024),
        ({"epochs": 24}, True, {}, 2048),
        ({"epochs": 1}, False, {}, 256),
        ({"epochs": 3}, False, {}, 1024),
        ({"epochs": 6}, False, {}, 2048),
        ({"steps": 3}, True, {}, 2048),
        ({"budget": "1min"}, True, {}, 2048),
        ({"epochs": 1}, True, {"judges": False}, 2048),
        ({"epochs": 1}, True, {"coupled": "vectors"}, 2048),
        ({"epochs": 1}, True, {"step_tokens": 128}, 128),  # pictures
    ],
)
def test_few_texts_and_adapters_are_learned_in_more_and_smaller_steps(
    train: dict[str, Any], few: bool, task: dict[str, Any], tokens: int
) -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))
    net[0].requires_grad_(not few)
    told = SimpleNamespace(**{"judges": True, "coupled": "none", "step_tokens": 2048} | task)
    loader: Any = type("Loader", (), {"context": 128, "__len__": lambda self: 400})()
    request = Request(told, Train(**train), loader, None, "trained", 0.0)  # type: ignore[arg-type]
    assert usual.tokens(request, net, 1) == tokens
    assert usual.tokens(request, net, 8) == max(tokens, min(1024, told.step_tokens)), "each device has a row"


def test_a_step_of_adapters_is_as_it_should_be(bases: dict[int, Path]) -> None:
    how = QUICK | {"batch_tokens": "auto", "steps": None, "epochs": 1, "tune": "lora"}
    plan = BertForSequenceClassification.from_pretrained(bases[32]).fit(bert.rows(600), **how).plan
    assert plan["rows"] * plan["accumulate"] * plan["context"] == 512


def test_what_is_held_in_few_bits_counts(bases: dict[int, Path]) -> None:
    net = nn.Sequential(nn.Linear(8, 8))
    assert usual._itself(net)
    net[0].coded = 80  # type: ignore[assignment]
    assert not usual._itself(net)
