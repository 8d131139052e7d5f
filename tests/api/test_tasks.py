"""The contract of the Python way, over every task of the catalogue: from rows to a folder that answers the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from danlu import AutoModel, catalogue, files
from danlu.config import WORDLESS
from danlu.modalities.text import Text
from danlu.tasks.span_denoising import SpanDenoising
from tests.api import bert
from tests.api.samples import SAMPLES
from tests.tiny_life import sentences

pytestmark = pytest.mark.usefixtures("steady")
WISH: dict[str, Any] = {"steps": 4, "lr": 0.01, "batch_tokens": 256, "precision": "fp32", "threads": 1, "quiet": True}

OF_TEXT = [task for task in catalogue.names() if catalogue.stated(task, "shape") not in WORDLESS]  # they have a base


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model that reads both ways, with a head for words and without, and one that goes on with text."""
    root = tmp_path_factory.mktemp("tasks")
    shape = transformers.GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=1, n_head=2, eos_token_id=0)
    transformers.GPT2LMHeadModel(shape).save_pretrained(root / "gpt2")
    Text.fit(sentences(60), vocab_size=300).save(root / "gpt2")
    spans = transformers.T5Config(
        vocab_size=400, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, n_positions=64
    )
    transformers.T5ForConditionalGeneration(spans).save_pretrained(root / "t5")
    Text.fit(sentences(60), vocab_size=300).with_control(SpanDenoising.markers).save(root / "t5")
    return {"gpt2": root / "gpt2", "t5": root / "t5", "words": bert.folder(root / "words", "BertForMaskedLM"),
            "bert": bert.folder(root / "bert")}  # fmt: skip


def _base(bases: dict[str, Path], task: str) -> Path:
    if catalogue.stated(task, "arch") == "t5":
        return bases["t5"]
    if catalogue.stated(task, "arch") not in ("bert", "electra"):
        return bases["gpt2"]
    return bases["bert" if catalogue.stated(task, "judges") else "words"]


@pytest.mark.parametrize("task", OF_TEXT)
def test_rows_in_a_folder_that_answers_out(task: str, bases: dict[str, Path], tmp_path: Path) -> None:
    rows = SAMPLES[task]
    found = []
    for _ in range(2):
        model = AutoModel.from_pretrained(_base(bases, task), task=task)
        history = model.fit(rows, **WISH)
        assert len(history["loss"]) == 4
        assert all(loss == loss for loss in history["loss"])
        found.append(files.tensors_hash(model.net.state_dict()))
    assert found[0] == found[1], "the same seed gives the same weights"
    assert model.task_name == task
    report = model.evaluate(rows, quiet=True)
    assert report.count > 50
    assert all(value == value for value in report.values())
    repr(report), repr(history), repr(model.summary()), repr(model.show_batch(rows))
    assert json.loads(json.dumps(report.errors(3))) is not None
    model.save_pretrained(tmp_path / "out")
    again = AutoModel.from_pretrained(tmp_path / "out")
    assert (type(again), again.task_name, again.task.labels) == (type(model), task, model.task.labels)
    assert dict(again.evaluate(rows, quiet=True)) == pytest.approx(dict(report), rel=1e-5, nan_ok=True)
    if model.judges:
        held_out = [model.task.asked(row) for row in rows[:3]]
        asked = [{name: row[name] for name in model.asks if name in row} for row in held_out]
        assert json.dumps(again.predict(asked)) == json.dumps(model.predict(asked))


@pytest.mark.parametrize("task", OF_TEXT)
def test_a_loop_of_ones_own_can_take_its_batches(task: str, bases: dict[str, Path]) -> None:
    model = AutoModel.from_pretrained(_base(bases, task), task=task)
    batch = model.show_batch(SAMPLES[task], rows=2).batch
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        out = model(**batch)
        losses.append(float(out.loss.detach()))
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
