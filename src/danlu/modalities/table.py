"""A table: numbers and categories of a row as ids with values, so that a row is a sum of vectors.

A column of numbers is one id, whose value is the number standardised by the rows to train on; of categories, each is an
id of value 1. What is missing, and what no row to train on had, have ids of their own in each column.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from danlu import files
from danlu.errors import UserError
from danlu.messages.reasons import because
from danlu.modalities.modality import Batch, Example, Modality, Word
from danlu.quantity import cell

if TYPE_CHECKING:
    import torch

_NUMBERS = 0.95  # share of a column's values that are numbers, from which the others are mistakes
_NAMES = 0.5  # different values per row from which a column of texts names rows instead of telling of them
_MANY = 20  # rows from which that can be told
_SEEN = 2  # times that a category must occur to have an id of its own
_MOST = 1000  # categories of a column, the most frequent ones
_TURNS = 12  # blank rows that an explanation compares with, at most
_FAR = 10.0  # standard deviations beyond which a number is taken as that far
_MISSING, _UNKNOWN, _FIRST = 0, 1, 2  # ids within a column; the first is that of a number, too


@dataclass(frozen=True)
class Column:
    """One column, and how its values become ids."""

    name: str
    first: int  # its first id
    mean: float = 0.0
    std: float = 0.0  # 0: categories
    categories: Mapping[str, int] = field(default_factory=dict)  # -> place among the column's ids

    @property
    def ids(self) -> int:
        return _FIRST + max(1, len(self.categories))

    def place(self, value: Any) -> tuple[int, float]:
        """(id, value) of a cell.

        Raises:
            UserError: E264, a text where numbers stand.
        """
        try:
            value = cell(value)
        except TypeError:
            raise UserError("E264", column=self.name, found=repr(value)[:60]) from None
        if value is None:
            return self.first + _MISSING, 1.0
        if not self.std:
            return self.first + self.categories.get(_category(value), _UNKNOWN), 1.0
        number = _number(value)
        if number is None:
            raise UserError("E264", column=self.name, found=repr(value)[:60])
        return self.first + _FIRST, float(np.clip((number - self.mean) / self.std, -_FAR, _FAR))


class Table(Modality):
    """The columns of a fitted table, in their order; `left_out` names those that tell nothing, and why."""

    column: ClassVar = "record"
    file: ClassVar = "table.json"
    counted: ClassVar = "cells"
    kind, encoder = "table", "danlu"

    def __init__(self, columns: Sequence[Column], left_out: Mapping[str, str]):
        self.columns, self.left_out = tuple(columns), dict(left_out)
        self.vocab_size = 1 + sum(each.ids for each in columns)  # 0 is padding
        self.pad_id, self.control = 0, dict[str, int]()

    @classmethod
    def fit(cls, values: Iterable[Any], **options: Any) -> Self:
        """Learn columns from records (JSON or mappings): numbers' mean and deviation, and the categories.

        Raises:
            UserError: E265, no column tells anything.
        """
        seen: dict[str, _Seen] = {}
        rows = 0
        for value in values:
            rows += 1
            for name, each in _record(value).items():
                seen.setdefault(name, _Seen()).add(each)
        columns, left_out, first = list[Column](), dict[str, str](), 1
        for name, found in seen.items():
            if reason := found.idle(rows):
                left_out[name] = reason
                continue
            columns.append(found.column(name, first))
            first += columns[-1].ids
        if not columns:
            raise UserError("E265", names=", ".join(left_out) or "-")
        return cls(columns, left_out)

    def length(self, context: int) -> int:
        """Places of a row: one for each column, whatever the context."""
        return len(self.columns)

    def encode(self, value: Any) -> Example:
        """ids (F,) and values (F,) of a record; a column that it lacks is missing.

        Raises:
            UserError: E264 a text where numbers stand, E266 a column that the table does not have, or no value.
        """
        record = _record(value)
        known = {column.name for column in self.columns} | set(self.left_out)
        if strange := [name for name in record if name not in known]:
            raise UserError("E266", column=strange[0], known=", ".join(column.name for column in self.columns))
        pairs = [column.place(record.get(column.name)) for column in self.columns]
        return {"input_ids": [index for index, _ in pairs], "values": np.array([v for _, v in pairs], np.float32)}

    @staticmethod
    def read(written: str) -> dict[str, Any]:
        """A record that is written as a JSON object.

        Raises:
            UserError: E608, it is none.
        """
        try:
            row = json.loads(written)
        except ValueError as error:
            raise UserError("E608", reason=because(error)) from error
        if not isinstance(row, dict):
            raise UserError("E608", reason=type(row).__name__)
        return row

    def said(self, value: Any) -> dict[str, list[str]]:
        """What of a record was not as in the rows to train on: columns that are missing, and unknown categories."""
        ids = self.encode(value)["input_ids"]
        places = [(column.name, index - column.first) for column, index in zip(self.columns, ids, strict=True)]
        found = {"missing": [name for name, place in places if place == _MISSING],
                 "unknown": [name for name, place in places if place == _UNKNOWN]}  # fmt: skip
        return {name: each for name, each in found.items() if each}

    def decode(self, encoded: Any) -> dict[str, Any]:
        """{column: category, standardised number, or None} of ids and values."""
        found: dict[str, Any] = {}
        for index, value in zip(encoded["input_ids"], encoded["values"], strict=True):
            column = next(each for each in self.columns if each.first <= index < each.first + each.ids)
            names = {place: name for name, place in column.categories.items()}
            number = float(value) * column.std + column.mean if index - column.first == _FIRST else None
            found[column.name] = number if column.std else names.get(index - column.first)
        return found

    def words(self, example: Example) -> list[Word]:
        """Each column with its value."""
        told = self.decode(example).items()
        shown = ["?" if value is None else f"{value:.6g}" if isinstance(value, float) else value for _, value in told]
        pairs = zip((name for name, _ in told), shown, strict=True)
        return [Word(f"  {name} = {value}", (place,)) for place, (name, value) in enumerate(pairs)]

    def blanks(self, example: Example) -> list[Example]:
        """Numbers are their mean, and each column's categories take turns: a row without one is like none that was
        learned from."""
        turns = min(_TURNS, max([1, *(len(column.categories) for column in self.columns)]))
        values = np.array([float(not column.std) for column in self.columns], np.float32)
        ids = [[column.first + _FIRST + turn % max(1, len(column.categories)) for column in self.columns]
               for turn in range(turns)]  # fmt: skip
        return [{**example, "input_ids": each, "values": values} for each in ids]

    def show(self, encoded: Iterable[int]) -> list[str]:
        """Each id as a reader sees it: a column, or a category of it."""
        names = ["—"]
        for column in self.columns:
            of = {place: name for name, place in column.categories.items()}
            names += [f"{column.name}={'?' if place < _FIRST else of.get(place, '#')}" for place in range(column.ids)]
        return [names[index] for index in encoded]

    def token_bytes(self) -> list[int]:
        """No id stands for bytes of text."""
        return [0] * self.vocab_size

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Columns (B, F), with `segment_ids` of 1: all rows have all columns."""
        import torch

        batch = {name: torch.stack([torch.as_tensor(row[name]) for row in examples]) for name in examples[0]}
        return batch | {"segment_ids": torch.ones_like(batch["input_ids"])}

    def embed(self, dim: int) -> "torch.nn.Module":
        """A table of vectors, each taken as often as its value says: input_ids, values (B, F) -> (B, F, dim)."""
        from danlu.nn.stems import Cells, CellsConfig

        return Cells(CellsConfig(self.vocab_size, len(self.columns)), dim)

    def save(self, folder: Path, *, typed: bool = False) -> None:
        """Write table.json."""
        columns = [asdict(column) for column in self.columns]
        files.write_json(folder / self.file, {"schema": files.SCHEMA, "columns": columns, "left_out": self.left_out})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The table in `folder`.

        Raises:
            UserError: E301, none there, or damaged.
        """
        try:
            said = json.loads((folder / cls.file).read_text("utf-8"))
            return cls([Column(**column) for column in said["columns"]], said["left_out"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError("E301", path=folder / cls.file, reason=because(error)) from error


class _Seen:
    """What a column holds, in memory that its different values bound."""

    def __init__(self) -> None:
        self.texts: Counter[str] = Counter()
        self.numbers = self.whole = 0
        self.mean = self.spread = 0.0  # Welford's running mean and sum of squares
        self.low, self.high = math.inf, -math.inf

    def add(self, value: Any) -> None:
        value = cell(value)
        if value is None:
            return
        number = _number(value)
        if number is not None:
            self.numbers += 1
            self.whole += number.is_integer()
            step = number - self.mean
            self.mean += step / self.numbers
            self.spread += step * (number - self.mean)
            self.low, self.high = min(self.low, number), max(self.high, number)
        self.texts[_category(value)] += 1

    @property
    def numeric(self) -> bool:
        return self.numbers >= _NUMBERS * max(1, self.texts.total())

    def idle(self, rows: int) -> str:
        """Why the column tells nothing of a row: "same" in all, or it "names" each; "" where it may tell."""
        if len(self.texts) < 2:
            return "same"
        if rows < _MANY:
            return ""
        counted = self.numeric and self.whole == self.numbers == len(self.texts) == rows
        named = counted and self.high - self.low + 1 == rows
        return "names" if named or (not self.numeric and len(self.texts) > _NAMES * rows) else ""

    def column(self, name: str, first: int) -> Column:
        if self.numeric:
            return Column(name, first, self.mean, math.sqrt(self.spread / self.numbers) or 1.0)
        often = sorted((text for text, times in self.texts.most_common(_MOST) if times >= _SEEN))
        return Column(name, first, categories={text: _FIRST + place for place, text in enumerate(often)})


def _record(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    return found


def _number(value: Any) -> float | None:
    """A finite number, also one that is written; None where it is none."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _category(value: Any) -> str:
    """1, 1.0 and "1" are one category; so are true and "true"."""
    number = _number(value)
    if number is not None and number.is_integer():
        return str(int(number))
    return str(value).lower() if isinstance(value, bool) or value in ("True", "False") else str(value)
