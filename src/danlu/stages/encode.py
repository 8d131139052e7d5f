"""Rows -> a tokenizer and columns: what training reads, memory-mapped.

The vocabulary is learned from the training rows alone, or taken over from an earlier stage or a base model.
Rows stream through one at a time; memory does not grow with them.
"""

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import disk, files
from danlu.errors import UserError
from danlu.messages import text as message

if TYPE_CHECKING:
    from danlu.graph import Context
    from danlu.modalities.text import Text
    from danlu.tasks.task import Example, Row, Task

VERSION = 2
APART = True
_FAR = 5.0  # deviations of what a base knows, from which on its scale is another
SPLITS = ("train", "valid", "test")
WRITTEN = 0.5  # bytes of columns for each byte of text, where a token of two bytes stands for four
_SHOWN_ROWS, _SHOWN_TOKENS = 3, 64


def run(context: "Context") -> None:
    """Write the tokenizer, columns/{train,valid,test} and tokens.json into context.out; set context.output_hash."""
    from danlu import tasks

    rows = context.inputs["rows"] / "rows"
    disk.require(context.out, _text(rows) * WRITTEN)
    kind: Any = tasks.load(context.config["task"])
    opening = next(_read(rows, "train"), None)
    if opening is None:
        raise UserError("E216")
    learned = _learned(context, rows, kind)
    processor = _processor(context, rows, kind)
    processor.save(context.out)
    options = context.config.get("options", {}) | learned
    labels = _labels(context, rows) if kind.learns_labels(options) else ()
    task = kind(processor, labels, _limit(context), options)
    first, chat = _first(task, opening, rows), bool(opening.get("messages"))
    task.noticed.clear()
    splits = {split: _encode(context, rows, split, task, first) for split in SPLITS}
    if out := sum(int(counts.get("left_out", 0)) for counts in splits.values()):
        context.view.line(message("encode.left_out", count=f"{out:,}", limit=context.config["max_answer"]))
    if cut := sum(int(counts.get("cut", 0)) for counts in splits.values()):
        context.view.line(message("encode.cut", count=f"{cut:,}", limit=task.context))
    for name, count in task.noticed.items():
        if count:
            context.view.line(message(f"encode.{name}", count=f"{count:,}"))
    about = {"kind": processor.kind, "vocab_size": processor.vocab_size, "encoder": processor.encoder}
    shown = [
        _shown(processor, row, example)
        for row in itertools.islice(_read(rows, "train"), _SHOWN_ROWS)
        for example in itertools.islice(task.examples([row]), 1)
    ]
    told = {"labels": labels, "learned": learned}
    table = {"schema": 1, "tokenizer": about, "chat": chat, **told, "splits": splits, "examples": shown}
    files.write_json(context.out / "tokens.json", table)
    context.facts |= about | {"tokens": {split: counts["tokens"] for split, counts in splits.items()}}
    context.output_hash = content_hash(context.out, processor.file, learned.get("names"))


# --- the tokenizer -------------------------------------------------------------------------------------


def _processor(context: "Context", rows: Path, kind: Any) -> Any:
    modality = kind.modality()
    given = context.inputs.get("tokenizer") or context.inputs.get("base")
    if given:
        known = modality.load(given).adjusted(**kind.read_by(context.config.get("options", {})))
        return known.with_control(kind.markers)
    wanted = context.config.get("tokenizer")
    context.progress(0, 1, message("encode.learning" if wanted else "encode.measuring"))
    values = (row[modality.column] for row in _read(rows, "train"))
    ways = wanted.model_dump() if wanted else kind.read_by(context.config.get("options", {}))
    return modality.fit(values, **ways).with_control(kind.markers)


def _limit(context: "Context") -> int | None:
    """Tokens of a text at most: as the recipe says, and no more than the base sees."""
    from danlu.folder import context_of

    said: int | None = context.config.get("context")
    base = context.inputs.get("base")
    return min(said, context_of(base)) if said and base else said


# --- the labels ------------------------------------------------------------------------------------------


def _labels(context: "Context", rows: Path) -> list[str]:
    """The labels that the base knows, or those of the rows to train on: numbers by value, before names.

    Raises:
        UserError: E251 there is only one, E267 or E268 there is none, E252 a label occurs in held-out rows alone, E313
            the base knows others.
    """
    from danlu import tasks
    from danlu.folder import taught

    kind: Any = tasks.load(context.config["task"])
    counts = {split: Counter(each for row in _read(rows, split) for each in kind.labels_of(row)) for split in SPLITS}
    base = context.inputs.get("base")
    if base and (before := taught(base, context.config["task"])):
        if unknown := [label for each in counts.values() for label in each if label not in before]:
            raise UserError("E313", ours=", ".join(before[:8]), theirs=", ".join(dict.fromkeys(unknown[:8])))
        return before
    known = counts["train"]
    if not known:
        raise UserError("E268", rows=f"{_rows(rows, 'train'):,}") if kind.shape == "boxed" else UserError("E267")
    if len(known) == 1 and kind.lone:
        raise UserError(kind.lone, label=next(iter(known)), rows=f"{known.total():,}")
    for split in ("valid", "test"):
        if unknown := [label for label in counts[split] if label not in known]:
            found = [f"{label}: {counts[split][label]:,}" for label in unknown[:5]]
            where = _told_in(rows, split, kind, unknown[0])
            raise UserError("E252", where=where, label=unknown[0], split=split, evidence=found)
    if rare := [label for label, times in known.items() if times == 1]:
        where = _told_in(rows, "train", kind, rare[0])
        context.view.line(message("encode.rare", count=len(rare), label=rare[0], where=where))
    return sorted(known, key=_order)


def _told_in(rows: Path, split: str, kind: Any, label: str) -> str:
    """The place of the first row of a split with that label."""
    return next((str(row["source"]) for row in _read(rows, split) if label in kind.labels_of(row)), "")


def _learned(context: "Context", rows: Path, kind: Any) -> dict[str, Any]:
    """{"scale": mean and deviation} of the numbers to learn, of the rows to train on alone, or as the base knows them;
    {"names": how classes are called} where labels are their numbers.

    Raises:
        UserError: E263, all rows have one number; E314, they are far from those that the base knows.
    """
    from danlu.folder import taught_options

    base = context.inputs.get("base")
    before = taught_options(base, context.config["task"]) if base else {}
    if known := kind.names_of(next(_read(rows, "train"), {})) or before.get("names"):
        return {"names": known}
    count, mean, spread = 0, 0.0, 0.0
    for number in map(kind.number_of, _read(rows, "train")):
        if number is None:
            return {}
        count += 1
        step = number - mean
        mean += step / count
        spread += step * (number - mean)
    if (scale := before.get("scale")) and count:
        if abs(mean - scale[0]) > _FAR * scale[1]:
            raise UserError("E314", ours=f"{mean:g}", mean=f"{scale[0]:g}", deviation=f"{scale[1]:g}")
        return {"scale": scale}
    if count and not spread:
        raise UserError("E263", number=f"{mean:g}", rows=f"{count:,}")
    return {"scale": [mean, math.sqrt(spread / count)]} if count else {}


def _order(label: str) -> tuple[bool, float, str]:
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label


# --- the columns ---------------------------------------------------------------------------------------


def _read(rows: Path, split: str) -> "Iterator[Row]":
    from danlu.data.store import read

    return read(rows, split)


def _first(task: "Task", row: "Row", rows: Path) -> "Example":
    """The first example; `row` is the first row.

    Raises:
        UserError: E250, the rows lack a column that the task reads; E216, they make no example.
    """
    from danlu.data import shapes

    try:
        return next(task.examples(_read(rows, "train")))
    except StopIteration:
        raise UserError("E216") from None
    except KeyError as missing:
        column = missing.args[0]
        if column in row or all(column not in shapes.of(shape).COLUMNS for shape in shapes.names()):
            raise
        found = ", ".join(name for name in row if name not in ("id", "source"))
        raise UserError("E250", where=row["source"], column=column, task=type(task).__name__, found=found) from missing


def _encode(context: "Context", rows: Path, split: str, task: "Task", first: "Example") -> dict[str, float]:
    """Write one split; its rows, tokens, bytes of text and bytes per token."""
    import numpy as np

    from danlu.data.columns import ColumnWriter
    from danlu.tasks.task import longest_answer

    dtypes = {name: _dtype(name, value, task.processor.vocab_size) for name, value in first.items()}
    scalars = [name for name, value in first.items() if np.ndim(value) == 0]
    shapes = {name: value.shape for name, value in first.items() if np.ndim(value) > 1}
    writer = ColumnWriter(context.out / "columns" / split, dtypes, scalars=scalars, shapes=shapes)
    token_bytes = np.array(task.processor.token_bytes())
    counts, total, limit = Counter(rows=0, tokens=0, bytes=0), _rows(rows, split), context.config.get("max_answer")
    with closing(writer):
        for example in _examples(task, _read(rows, split)):
            if limit and longest_answer(example) > limit:
                counts["left_out"] += 1
                continue
            writer.add(example)
            ids = np.asarray(example["input_ids"], np.int64)
            counts.update(rows=1, tokens=len(ids), bytes=int(token_bytes[ids].sum()))
            counts["cut"] += _cut(task, example)
            if counts["rows"] % 100 == 0:
                context.progress(min(counts["rows"], total), total, message("encode.encoding", split=split))
    return {**counts, "bytes_per_token": round(counts["bytes"] / max(counts["tokens"], 1), 3)}


def _cut(task: "Task", example: "Example") -> bool:
    """Whether a text of an example reaches the context."""
    import numpy as np

    parts = np.asarray(example.get("parts", np.zeros(len(example["input_ids"]), np.int64)))
    return task.long == "cut" and bool(np.bincount(parts).max(initial=0) == task.context)


def _examples(task: "Task", rows: "Iterator[Row]") -> "Iterator[Example]":
    """What the task makes of rows; what it cannot read is named with its place."""
    place = ""

    def read() -> "Iterator[Row]":
        nonlocal place
        for row in rows:
            place = row["source"]
            yield row

    try:
        yield from task.examples(read())
    except UserError as error:
        raise UserError(error.code, where=error.where or place, evidence=error.evidence, **error.fields) from error


def _rows(rows: Path, split: str) -> int:
    return sum(shard.num_rows for shard in _metadata(rows, split))


def _text(rows: Path) -> int:
    """Bytes of the texts of all splits, uncompressed; 0 where the rows have no plain text."""
    shards = itertools.chain.from_iterable(_metadata(rows, split) for split in SPLITS)
    groups = (shard.row_group(each) for shard in shards for each in range(shard.num_row_groups))
    columns = (group.column(each) for group in groups for each in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "text")


def _metadata(rows: Path, split: str) -> Iterator[Any]:
    """What the shards of a split say about themselves."""
    import pyarrow.parquet as pq

    from danlu.data.store import shards

    return (pq.read_metadata(path) for path in shards(rows, split))


def _dtype(name: str, value: Any, vocab_size: int) -> str:
    """Ids as small as the vocabulary allows, masks in a byte, other numbers as numpy holds them."""
    import numpy as np

    from danlu.data.columns import token_dtype

    if name == "input_ids":
        return token_dtype(vocab_size)
    if name == "labels" and np.asarray(value).dtype.kind != "f":
        return "int32"
    return "uint8" if name.endswith(("_mask", "type_ids")) else np.asarray(value).dtype.name


# --- what is recorded ----------------------------------------------------------------------------------


def _shown(processor: "Text", row: "Row", example: "Example") -> dict[str, Any]:
    ids = list(example["input_ids"][:_SHOWN_TOKENS])
    learned = list(example.get("loss_mask", [1] * len(ids))[:_SHOWN_TOKENS])
    return {"id": row["id"], "source": row["source"], "tokens": processor.show(ids), "ids": ids, "learned": learned}


def content_hash(folder: Path, processor: str = "tokenizer.json", names: Mapping[str, str] | None = None) -> str:
    """sha256 over the tokenizer (or table) and every column file, by name, and over what classes are called."""
    paths = [folder / processor, *sorted((folder / "columns").rglob("*.*"))]
    lines = (f"{path.relative_to(folder).as_posix()} {files.sha256(path)}\n" for path in paths)
    return hashlib.sha256("".join([*lines, json.dumps(names) if names else ""]).encode()).hexdigest()
