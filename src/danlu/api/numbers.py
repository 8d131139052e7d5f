"""Rows that are token ids already, as tokenizers and DataLoaders give them -> the columns that the loop reads."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu import files
from danlu.api import rows
from danlu.data import split
from danlu.data.columns import ColumnWriter, token_dtype
from danlu.errors import UserError

if TYPE_CHECKING:
    from danlu.api.pretrained import Pretrained

IGNORE = -100
Example = dict[str, Any]


def given(data: Any) -> Iterator[Mapping[str, Any]] | None:
    """The rows, where they are numbers; None where they are something to be read and encoded."""
    if rows.paths(data) is not None or isinstance(data, tuple):
        return None
    found = rows.rows(data)
    first = next(found, {})
    return chain([first], found) if rows.IDS in first else None


def write(model: "Pretrained", parts: Mapping[str, Iterator[Mapping[str, Any]]], share: float, out: Path) -> int:
    """An encode folder of rows {split: rows}; of those to train on a `share` is held out, where no others are.

    Returns how many were longer than the model sees, and cut.

    Raises:
        UserError: E251 one class, E273 the task makes its labels itself, E274 ids or labels that the model lacks.
    """
    found = {name: list(each) for name, each in parts.items()}
    labels = _labels(model, found["train"])
    made = {name: [_example(model, row, labels) for row in each] for name, each in found.items()}
    if share and "valid" not in made:
        places = split.assign([split.position(_digest(each)) for each in made["train"]], {"valid": share})
        made = {name: [each for each, place in zip(made["train"], places, strict=True) if place == name]
                for name in ("train", "valid")}  # fmt: skip
    splits = {
        name: _columns(model, made.get(name, []), made["train"][0], out / "columns" / name) for name in split.NAMES
    }
    model.processor.save(out)
    about = {"schema": files.SCHEMA, "chat": False, "labels": labels, "splits": splits, "examples": []}
    files.write_json(out / "tokens.json", about)
    return sum(len(row[rows.IDS]) > len(each["input_ids"]) == model.context
               for name in found for row, each in zip(found[name], made[name], strict=False))  # fmt: skip


def ids(row: Mapping[str, Any]) -> list[int]:
    """The token ids of a row, without padding."""
    real = np.asarray(row.get("attention_mask", np.ones(len(row[rows.IDS]))), bool)
    return [int(each) for each in np.asarray(row[rows.IDS])[real]]


def named(model: "Pretrained", row: Mapping[str, Any]) -> dict[str, Any]:
    """The label of a row by its name, where it has one."""
    label = _label(row)
    return {"label": model.task.labels[label] if isinstance(label, int) and model.task.labels else label}


def examples(model: "Pretrained", found: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Rows as the task encodes others, their labels unknown."""
    known = ("input_ids", "attention_mask", "token_type_ids")
    return [_example(model, {key: row[key] for key in known if key in row}, ()) for row in found]


def _labels(model: "Pretrained", found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The labels by their numbers: the model's own, where it has some, else those that occur."""
    if not model.task.labelled:
        return []
    seen = [_label(row) for row in found]
    names = sorted({each for each in seen if isinstance(each, str)})
    numbers = [each for each in seen if isinstance(each, int)]
    if len(set(seen)) == 1 and seen[0] is not None:
        raise UserError("E251", label=seen[0], rows=f"{len(seen):,}")
    if not model.untrained or len(model.task.labels) > max(numbers, default=-1) >= 2:
        return list(model.task.labels)
    return names or [str(number) for number in range(max(numbers, default=-1) + 1)]


def _label(row: Mapping[str, Any]) -> Any:
    """The label of a whole row as a plain value; None where its tokens have labels, or there is none."""
    value: Any = next((row[name] for name in rows.LABELS if name in row), None)
    plain = value.tolist() if hasattr(value, "tolist") else value
    return plain if isinstance(plain, str | int | float) else None


def _example(model: "Pretrained", row: Mapping[str, Any], labels: Sequence[str]) -> Example:
    """A row as the loop reads it: without padding, a label of the whole row at its first token."""
    real = np.asarray(row.get("attention_mask", np.ones(len(row[rows.IDS]))), bool)
    ids = np.asarray(row[rows.IDS], np.int64)[real][: model.context]
    if not len(ids) or ids.min() < 0 or ids.max() >= model.architecture.tokens.vocab:
        highest = model.architecture.tokens.vocab - 1
        raise UserError("E274", what="input_ids", found=ids.tolist()[:8], highest=highest)
    made = {"input_ids": ids}
    if "token_type_ids" in row and model.architecture.tokens.types:
        made["type_ids"] = np.asarray(row["token_type_ids"], np.int64)[real][: len(ids)]
    return made | _taught(model, row, labels, real, len(ids))


def _taught(model: "Pretrained", row: Mapping[str, Any], labels: Sequence[str], real: np.ndarray, size: int) -> Example:
    """What the row says is to be learned."""
    value = next((row[name] for name in rows.LABELS if row.get(name) is not None), None)
    if value is None:
        return {"labels": np.full(size, IGNORE)} if model.task.labelled else {}
    if np.ndim(value):
        each = np.asarray(value)[real][:size]
        if model.task.ahead:
            return {"loss_mask": (each != IGNORE).astype(np.int64)}
        return {"labels": each}
    if not model.task.labelled:
        raise UserError("E273", task=model.task_name)
    return {"labels": _first(_number(_label(row), labels), size)}


def _number(label: Any, labels: Sequence[str]) -> Any:
    number = labels.index(label) if isinstance(label, str) and label in labels else label
    if isinstance(number, str) or (isinstance(number, int) and not 0 <= number < len(labels)):
        raise UserError("E274", what="labels", found=number, highest=len(labels) - 1)
    return number


def _first(value: Any, size: int) -> np.ndarray:
    """A label at the first of `size` tokens."""
    if isinstance(value, float):
        return np.array([value] + [np.nan] * (size - 1), np.float32)
    return np.array([value] + [IGNORE] * (size - 1))


def _columns(model: "Pretrained", made: Sequence[Example], first: Example, folder: Path) -> dict[str, int]:
    """Write one split; its rows and tokens."""
    kinds = {name: _dtype(name, value, model.architecture.tokens.vocab) for name, value in first.items()}
    writer = ColumnWriter(folder, kinds)
    for each in made:
        writer.add(each)
    writer.close()
    return {"rows": len(made), "tokens": sum(len(each["input_ids"]) for each in made)}


def _dtype(name: str, value: np.ndarray, vocab: int) -> str:
    if name == "input_ids":
        return token_dtype(vocab)
    return value.dtype.name if value.dtype.kind == "f" else "int32" if name == "labels" else "uint8"


def _digest(example: Example) -> str:
    return hashlib.sha256(example["input_ids"].tobytes()).hexdigest()
