"""The rate that is chosen where a recipe leaves it open follows what is trained, and how wide it is."""

from pathlib import Path
from typing import Any

import pytest

from danlu import BertForSequenceClassification
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
