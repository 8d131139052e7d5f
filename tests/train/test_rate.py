"""The rate that is chosen where a recipe leaves it open follows what is trained, and how wide it is."""

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
    assert ("lr = 0.003 makes a pretrained network forget; all of this one is usually tuned at 0.00023" in
            told.out + told.err) == said  # fmt: skip


@pytest.mark.parametrize(("family", "rate"), [("gpt", 0.03), ("roberta", 0.005), ("electra", 0.005), ("t5", 0.005)])
def test_norms_behind_sums_and_encoder_decoders_begin_slowly(family: str, rate: float) -> None:
    net = architecture.empty(models.preset(family, 64, 16, 1))
    request = Request(SimpleNamespace(judges=False), Train(), None, None, True, 0.0)  # type: ignore[arg-type]
    assert usual.rate(request, net, "muon") == rate


@pytest.mark.parametrize(
    ("train", "few", "task", "tokens"),
    [
        ({"epochs": 1}, True, {}, 512),
        ({"epochs": 12}, True, {}, 1024),
        ({"epochs": 24}, True, {}, 2048),
        ({"epochs": 1}, False, {}, 2048),
        ({"steps": 3}, True, {}, 2048),
        ({"budget": "1min"}, True, {}, 2048),
        ({"epochs": 1}, True, {"judges": False}, 2048),
        ({"epochs": 1}, True, {"coupled": "vectors"}, 2048),
        ({"epochs": 1}, True, {"step_tokens": 128}, 64),
    ],
)
def test_adapters_learn_in_more_and_smaller_steps(
    train: dict[str, Any], few: bool, task: dict[str, Any], tokens: int
) -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))
    net[0].requires_grad_(not few)
    told = SimpleNamespace(**{"judges": True, "coupled": "none", "step_tokens": 2048} | task)
    loader: Any = type("Loader", (), {"context": 128, "__len__": lambda self: 400})()
    request = Request(told, Train(**train), loader, None, False, 0.0)  # type: ignore[arg-type]
    assert usual.tokens(request, net) == tokens
