"""Whatever rows are held in, the model that learns from them is the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from danlu import AutoModel, BertForSequenceClassification, files
from danlu.api import rows
from danlu.errors import UserError
from tests.api import bert
from tests.api.bert import LABELS, QUICK

pytestmark = pytest.mark.usefixtures("steady")
ROWS = bert.rows(48)
TEXTS, NAMES = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
NUMBERS = [LABELS.index(name) for name in NAMES]
WISH: dict[str, Any] = {**QUICK, "steps": 3}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert.folder(tmp_path_factory.mktemp("rows") / "bert")


class Held(torch.utils.data.Dataset[Any]):
    """A torch Dataset of rows, which ends by its length."""

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, place: int) -> dict[str, str]:
        return ROWS[place]


def frame(kind: str) -> Any:
    library = pytest.importorskip(kind, reason=f"{kind} is not installed")
    return library.DataFrame({"text": TEXTS, "label": NAMES})


def dataset(**features: Any) -> Any:
    library = pytest.importorskip("datasets", reason="datasets is not installed")
    labels = library.ClassLabel(names=LABELS)
    found = library.Dataset.from_dict({"text": TEXTS, "label": NUMBERS})
    return found.cast_column("label", labels)


KINDS: dict[str, Callable[[Path], Any]] = {
    "list of dicts": lambda folder: ROWS,
    "generator": lambda folder: (dict(row) for row in ROWS),
    "path": lambda folder: bert.jsonl(folder / "rows.jsonl", ROWS),
    "string": lambda folder: str(bert.jsonl(folder / "rows.jsonl", ROWS)),
    "csv with other names": lambda folder: _csv(folder),
    "x and y": lambda folder: (TEXTS, NAMES),
    "arrays": lambda folder: (np.array(TEXTS), np.array(NAMES)),
    "pairs of a text and its label": lambda folder: list(zip(TEXTS, NAMES, strict=True)),
    "torch dataset": lambda folder: Held(),
    "loader of texts": lambda folder: torch.utils.data.DataLoader(Held(), batch_size=7),
    "pandas": lambda folder: frame("pandas"),
    "polars": lambda folder: frame("polars"),
    "datasets": lambda folder: dataset(),
}


def _csv(folder: Path) -> Path:
    lines = [f'"{row["text"]}",{row["label"]}' for row in ROWS]
    (folder / "rows.csv").write_text("review,stars\n" + "\n".join(lines), "utf-8")
    return folder / "rows.csv"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_holds_the_same_rows(kind: str, tmp_path: Path) -> None:
    data = KINDS[kind](tmp_path)
    if rows.paths(data):
        return
    assert [(row["text"], row["label"]) for row in rows.rows(data)] == list(zip(TEXTS, NAMES, strict=True))


@pytest.mark.parametrize(
    "kind", ["x and y", "generator", "csv with other names", "loader of texts", "pandas", "datasets"]
)
def test_a_model_learns_the_same_from_every_kind(kind: str, base: Path, tmp_path: Path) -> None:
    """Sets of one content have one order and one split, but for what names a file."""
    model = BertForSequenceClassification.from_pretrained(base)
    history = model.fit(KINDS[kind](tmp_path), **WISH)
    assert model.task.labels == tuple(LABELS)
    assert len(history["loss"]) == 3
    assert len(model.evaluate(KINDS[kind](tmp_path), quiet=True).rows) == 48


def test_numbers_are_the_same_as_the_rows_they_were_made_of(base: Path) -> None:
    """A DataLoader of what transformers' tokenizer makes, padded on either side."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    whole = {**WISH, "split": {"valid": 0.0, "test": 0.0}, "batch_tokens": 10_000, "dropout": 0.0}
    found = []
    for side in ("right", "left"):
        tokenizer.padding_side = side
        encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
        held = [{**{name: encoded[name][i] for name in encoded}, "labels": NUMBERS[i]} for i in range(len(ROWS))]
        model = BertForSequenceClassification.from_pretrained(base, labels=LABELS)
        history = model.fit(torch.utils.data.DataLoader(held, batch_size=5), **whole)  # type: ignore[arg-type]
        assert model.evaluate(held, quiet=True)["accuracy"] == model.evaluate(ROWS, quiet=True)["accuracy"]
        assert [each["label"] for each in model.predict(held)] == [each["label"] for each in model.predict(TEXTS)]
        found.append(history["loss"])
    of_rows = BertForSequenceClassification.from_pretrained(base, labels=LABELS)
    found.append(of_rows.fit(ROWS, **whole)["loss"])
    assert found[0] == found[1] == pytest.approx(found[2], abs=2e-6)


def test_numbers_that_do_not_belong_are_refused(base: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(base)
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ([{"input_ids": [2, 9999, 3], "labels": i} for i in range(3)], {}, "E274"),
        ([{"input_ids": [2, 5, 3], "labels": 0}] * 3, {}, "E251"),
        ([{"input_ids": [2, 5, 3], "labels": i} for i in range(3)], {"columns": {"text": "review"}}, "E106"),
    ]
    for data, wish, code in wrong:
        with pytest.raises(UserError) as caught:
            model.fit(data, quiet=True, **wish)
        assert caught.value.code == code
    masked = AutoModel.from_pretrained(bert.folder(base.parent / "masked", "BertForMaskedLM"))
    with pytest.raises(UserError) as caught:
        masked.fit([{"input_ids": [2, 5, 3], "labels": 1}] * 3, quiet=True)
    assert caught.value.code == "E273"


def test_what_is_asked_is_read_as_what_was_learned(base: Path, tmp_path: Path) -> None:
    """Rows whose columns have other names, and lines that are no table."""
    model = BertForSequenceClassification.from_pretrained(base)
    model.fit(_csv(tmp_path), **WISH)
    wanted = [each["label"] for each in model.predict(TEXTS)]
    assert [each["label"] for each in model.predict(_csv(tmp_path))] == wanted
    assert [each["label"] for each in model.predict([{"review": text} for text in TEXTS])] == wanted
    (tmp_path / "trec.label").write_text("".join(f"{row['label'].upper()}:x {row['text']}\n" for row in ROWS), "utf-8")
    lines = BertForSequenceClassification.from_pretrained(base)
    lines.fit(tmp_path / "trec.label", **WISH)
    assert lines.task.labels == tuple(label.upper() for label in LABELS)
    assert len(lines.predict(tmp_path / "trec.label")) == 48
    with pytest.raises(UserError) as caught:
        lines.predict([{"review": "a text"}])
    assert caught.value.code == "E607"


def test_splits_by_name_are_taken_as_they_are(base: Path, capsys: Any) -> None:
    model = BertForSequenceClassification.from_pretrained(base)
    model.fit({"train": ROWS, "validation": bert.rows(12, 60)}, **{**WISH, "quiet": False})
    assert "60 rows read: 48 to train on, 12 held out" in capsys.readouterr().err


def test_what_is_missing_in_a_frame_is_missing(base: Path) -> None:
    table = frame("pandas")
    table.loc[4, "label"] = None
    with pytest.raises(UserError, match=r"train\.jsonl:5") as caught:
        BertForSequenceClassification.from_pretrained(base).fit(table, quiet=True)
    assert caught.value.code == "E208"


def test_rows_written_for_a_training_are_kept_with_it(base: Path, tmp_path: Path) -> None:
    BertForSequenceClassification.from_pretrained(base).fit(ROWS, folder=tmp_path / "fit", **WISH)
    lines = (tmp_path / "fit" / "train.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 48
    assert files.read_json(tmp_path / "fit" / "fit.json")["schema"] == 1
