"""A few hundred of the recipe's own rows: from its finished folders, or read and cleaned from its files."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from danlu import tasks
from danlu.data import boxes, derive, masks, records, shapes, sources, store
from danlu.errors import UserError
from danlu.graph import Life
from danlu.life import Node
from danlu.tasks.task import Row

ROWS, CHARACTERS = 256, 300_000
_FILES = 8  # that are opened where nothing is prepared yet
_SECONDS = 8.0  # after which the reading of raw files ends
_VOCABULARY = 1024  # of a tokenizer that is learned from the sample


class Sample:
    """The rows of each training and the tokenizer of a life."""

    def __init__(self, life: Life):
        self.life, self.nodes = life, {node.name: node for node in life.nodes}
        for _ in life.states():  # which finds the finished folders
            pass

    def rows(self, name: str) -> list[Row]:
        """The first rows of a prepare stage.

        Raises:
            UserError: E216, there are none.
        """
        found = list(_bounded(self._rows(self.nodes[name])))
        if not found:
            raise UserError("E216")
        return found

    def _rows(self, node: Node) -> Iterable[Row]:
        if node.name in self.life.folders:
            return store.read(self.life.folders[node.name] / "rows", "train")
        if isinstance(node.config, dict):
            return _derived(self.rows(node.inputs["rows"]), derive.derivation(node.config["derive"]))
        return _read(node, self.life)

    def processor(self) -> Any:
        """That of the life, or one of its kind learned from the sample."""
        encode = self.nodes["encode"]
        kind: Any = tasks.load(encode.config["task"])
        modality = kind.modality()
        if "encode" in self.life.folders:
            return modality.load(self.life.folders["encode"])
        if base := encode.external.get("base"):
            known = modality.load(self.life.loaded.model(base))
            return known.adjusted(**kind.read_by(encode.config.get("options", {})))
        values = (row[modality.column] for row in self.rows("prepare"))
        if (wanted := encode.config.get("tokenizer")) is None:
            return modality.fit(values, **kind.read_by(encode.config.get("options", {})))
        size = _VOCABULARY if wanted.vocab_size == "auto" else min(wanted.vocab_size, _VOCABULARY)
        return modality.fit(values, type=wanted.type, vocab_size=size)


def _bounded(rows: Iterable[Row]) -> Iterator[Row]:
    left = CHARACTERS
    for row in islice(rows, ROWS):
        if left <= 0:
            return
        left -= len(row["text"])
        yield row


def _read(node: Node, life: Life) -> Iterator[Row]:
    """Rows of the smallest raw files, one after the other, cleaned as the recipe says."""
    config, paths = node.config, sorted(life.raw_files(node), key=lambda path: path.stat().st_size)
    found = [_source(path, config) for path in _some(paths, config.shape)]
    reader = records.Reader.of(config)
    shape, started = reader.shape(found), time.monotonic()
    for file in found:
        for record in islice(reader.records(file, shape), ROWS):
            if time.monotonic() - started > _SECONDS:
                return
            if record.row and not record.step:
                yield _row(record)
    reader.check()


def _some(paths: list[Path], shape: str) -> list[Path]:
    """The first files, with those without which they cannot be read."""
    if shape == "masked":
        return masks.some(paths, _FILES)
    told = [path for path in paths if shape == "boxed" and boxes.annotates(path)]
    return [*[path for path in paths if path not in set(told)][:_FILES], *told]


def _source(path: Path, config: Any) -> sources.SourceFile:
    """Without its hash, which only ids are made of: the whole file need not be read."""
    kind = sources.format_of(path) if config.format == "auto" else config.format
    return sources.SourceFile(path, path.name, "", kind, config.encoding)


def _derived(rows: Iterable[Row], make: derive.Derivation) -> Iterator[Row]:
    for row in rows:
        for made in make(row):
            yield _row(records.Record(made["id"], made["source"], shapes.loaded(made)))


def _row(record: records.Record) -> Row:
    """A record as the prepare stage writes it."""
    assert record.row is not None
    return {"id": record.id, "source": record.source, "text": record.text, **shapes.stored(record.row)}
