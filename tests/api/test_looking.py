"""What a model shows of itself and of what it sees; what is frozen; the range test; pipelines."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from danlu import AutoModel, BertForMaskedLM, BertForSequenceClassification, pipeline
from danlu.api import pipeline as pipelines
from danlu.errors import UserError
from tests.api import bert
from tests.api.bert import LABELS, QUICK

pytestmark = pytest.mark.usefixtures("steady")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert.folder(tmp_path_factory.mktemp("looking") / "bert")


@pytest.fixture(scope="module")
def taught(base: Path) -> Path:
    model = BertForSequenceClassification.from_pretrained(base)
    assert model.fit(bert.rows(), **QUICK)._repr_html_().count("<circle") == 10
    model.save_pretrained(base.parent / "taught")
    return base.parent / "taught"


# --- parts -----------------------------------------------------------------------------------------------


def test_summary_counts_what_there_is(base: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(base, labels=LABELS)
    total = sum(p.numel() for p in model.parameters())
    for depth in (1, 3, 5):
        found = model.summary(depth)
        assert found.parameters == sum(part.parameters for part in found.parts) == total
    model.freeze()
    found = model.summary()
    head = sum(p.numel() for p in model.net.head.parameters())
    assert found.trained == sum(part.trained for part in found.parts) == head
    assert found.megabytes == pytest.approx(4 * total / 1e6)
    assert f"{head:,} of {total:,}" in repr(found)
    assert "core.blocks.1" in repr(found)


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [("encoder.layer.0-1", 2), ("core.blocks.0", 1), ("bert.encoder.layer.1", 1), ("blocks.*", 2)],
)
def test_parts_go_by_both_names(base: Path, pattern: str, layers: int) -> None:
    model = BertForSequenceClassification.from_pretrained(base)
    block = sum(p.numel() for p in model.net.core.blocks[0].parameters())
    model.freeze(pattern)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert frozen == layers * block


def test_what_is_frozen_stays(base: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(base)
    model.freeze().unfreeze(last=1)
    before = {name: p.detach().clone() for name, p in model.net.named_parameters() if not name.startswith("head.")}
    model.fit(bert.rows(40), **{**QUICK, "steps": 3})
    changed = {name for name, p in model.net.named_parameters() if name in before and not p.equal(before[name])}
    assert changed and all(name.startswith("core.blocks.1.") for name in changed)
    free = {name for name, p in model.net.named_parameters() if p.requires_grad}
    assert all(name.startswith(("core.blocks.1.", "head.", "core.norm")) for name in free), "as it was before fit"


def test_a_part_that_is_none_is_refused(base: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(base)
    with pytest.raises(UserError, match=r"encoder\.layer") as caught:
        model.freeze("encoder.layers.0")
    assert caught.value.code == "E143"
    model = BertForSequenceClassification.from_pretrained(base, labels=LABELS)
    model.fit(bert.rows(30), **{**QUICK, "steps": 1})
    model.freeze("embed", "core", "head")
    with pytest.raises(UserError) as caught:
        model.fit(bert.rows(30), **{**QUICK, "steps": 1})
    assert caught.value.code == "E144"


# --- rates and batches -----------------------------------------------------------------------------------


def test_the_range_test_finds_where_the_loss_falls(base: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(base, labels=LABELS)
    before = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
    found = model.lr_find(bert.rows(), steps=40, quiet=True, batch_tokens=256, precision="fp32", threads=1)
    assert all(tensor.equal(before[name]) for name, tensor in model.net.state_dict().items()), "on a copy"
    assert found.lr[0] == pytest.approx(1e-6)
    ratios = {round(b / a, 6) for a, b in zip(found.lr, found.lr[1:], strict=False)}
    assert len(ratios) == 1, "each rate is the last times one factor"
    assert found.loss[0] == pytest.approx(math.log(3), abs=0.3)
    assert 1e-5 < found.suggestion < found.lowest
    assert f"{found.suggestion:.1e}" in repr(found)
    assert "<svg" in found._repr_html_()
    assert found.level[1] == pytest.approx(found.level[0], abs=0.01), "a tiny rate changes nothing, whatever the batch"
    assert min(found.smooth) < found.level[0] - 0.005


def test_the_range_test_refuses_what_it_would_not_read(base: Path) -> None:
    for name, value in (("lr", 0.1), ("epochs", 3), ("tune", "lora")):
        with pytest.raises(UserError, match="lr_find") as caught:
            BertForSequenceClassification.from_pretrained(base).lr_find(bert.rows(9), **{name: value})
        assert caught.value.code == "E102"
    with pytest.raises(UserError, match="show_batch"):
        BertForSequenceClassification.from_pretrained(base).show_batch(bert.rows(9), batch_tokens=64)


def test_a_batch_is_shown_as_the_network_sees_it(base: Path) -> None:
    rows = bert.rows(6)
    model = BertForSequenceClassification.from_pretrained(base)
    seen = model.show_batch(rows, rows=9, split={"valid": 0.0, "test": 0.0})
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    wanted = {
        (tuple(tokenizer.convert_ids_to_tokens(tokenizer(row["text"])["input_ids"])), row["label"]) for row in rows
    }
    texts: dict[tuple[int, int], list[Any]] = {}
    for number, row in enumerate(seen.rows):
        for place in row:
            if place.segment:
                texts.setdefault((number, place.segment), []).append(place)
    found = {(tuple(place.token.strip() for place in text), text[0].label) for text in texts.values()}
    assert found == wanted
    assert all(not place.label for text in texts.values() for place in text[1:])
    assert "→king" in repr(seen)
    assert "<table" in seen._repr_html_()


def test_hidden_words_are_shown_as_hidden(tmp_path: Path) -> None:
    model = BertForMaskedLM.from_pretrained(bert.folder(tmp_path / "masked", "BertForMaskedLM"))
    seen = model.show_batch([row["text"] for row in bert.rows(30)], rows=4, clean=["normalize"])
    learned = [place for row in seen.rows for place in row if place.label]
    share = len(learned) / sum(place.segment > 0 for row in seen.rows for place in row)
    assert 0.05 < share < 0.3
    assert sum(place.token == "[MASK]" for place in learned) > 0.5 * len(learned)


# --- pipelines -------------------------------------------------------------------------------------------

TEXTS = ["It is the king.", "The old queen sees a ship."]


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_k": None}], ids=str)
def test_classes_come_as_from_transformers(taught: Path, options: dict[str, Any]) -> None:
    ours, theirs = (
        pipeline("text-classification", str(taught)),
        transformers.pipeline("text-classification", str(taught)),
    )
    for given in (TEXTS, TEXTS[0]):
        found, wanted = ours(given, **options), theirs(given, **options)
        assert _flat(found)[0] == _flat(wanted)[0]
        assert _flat(found)[1] == pytest.approx(_flat(wanted)[1], abs=1e-5)
        assert _form(found) == _form(wanted)


def _flat(value: Any) -> tuple[list[str], list[float]]:
    """All labels, and all scores, in order."""
    if isinstance(value, dict):
        return [value["label"]], [value["score"]]
    parts = [_flat(each) for each in value]
    return [label for labels, _ in parts for label in labels], [score for _, scores in parts for score in scores]


def _form(value: Any) -> Any:
    return sorted(value) if isinstance(value, dict) else [_form(each) for each in value]


def test_masks_are_filled_as_by_transformers(tmp_path: Path) -> None:
    folder = bert.folder(tmp_path / "masked", "BertForMaskedLM")
    ours, theirs = pipeline("fill-mask", folder), transformers.pipeline("fill-mask", str(folder))
    for given in ("the [MASK] sees a river", "the [MASK] sees a [MASK]"):
        found, wanted = ours(given), theirs(given)
        assert [each["token"] for each in _rows(found)] == [each["token"] for each in _rows(wanted)]
        assert [each["score"] for each in _rows(found)] == pytest.approx([e["score"] for e in _rows(wanted)], abs=1e-5)
        assert [each["token_str"] for each in _rows(found)] == [each["token_str"] for each in _rows(wanted)]
    assert AutoModel.from_pretrained(folder).predict("the [MASK] sees a river") == ours("the [MASK] sees a river")
    with pytest.raises(UserError) as caught:
        ours("nothing is hidden here")
    assert caught.value.code == "E146"


def _rows(found: list[Any]) -> list[dict[str, Any]]:
    return found if isinstance(found[0], dict) else [each for part in found for each in part]


def test_text_is_continued(tmp_path: Path) -> None:
    shape = transformers.GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=1, n_head=2, eos_token_id=0)
    transformers.GPT2LMHeadModel(shape).save_pretrained(tmp_path)
    from danlu.modalities.text import Text

    Text.fit(bert_texts(), vocab_size=300).save(tmp_path)
    ((answer,),) = [pipeline("text-generation", tmp_path)("The old king", max_new_tokens=5, seed=3)]
    assert answer["generated_text"].startswith("The old king")


def bert_texts() -> list[str]:
    return [row["text"] for row in bert.rows(60)]


def test_a_pipeline_that_does_not_fit_is_refused(taught: Path) -> None:
    assert repr(pipeline(model=taught)) == "text-classification · BertForSequenceClassification"
    for name, code in (("fill-mask", "E145"), ("translation-of-dreams", "E111")):
        with pytest.raises(UserError) as caught:
            pipeline(name, taught)
        assert caught.value.code == code
    assert pipelines.known()["sentiment-analysis"] == "text_classification"
    assert torch.is_grad_enabled()
