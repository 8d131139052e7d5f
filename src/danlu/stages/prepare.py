"""Raw files -> rows: read, clean, deduplicate, split; every row that goes keeps its reason.

Two passes over bounded pieces: the first reads and cleans into a working folder, from which Daft finds the duplicates;
the second writes what stays, in order of id. The split comes last, so that no copy of a held-out row is trained on.
"""

import hashlib
import heapq
import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from danlu import disk, files, messages
from danlu.data import filters, shapes, sources, split
from danlu.errors import UserError

if TYPE_CHECKING:
    from danlu.config import Data
    from danlu.data.dedup import Duplicates
    from danlu.data.derive import Derivation
    from danlu.data.ledger import Funnel
    from danlu.data.records import Reader, Record
    from danlu.graph import Context
    from danlu.life import Node
    from danlu.recipe import Loaded

VERSION = 4
APART = True  # what it loads is of no use to the stages that follow
_EXAMPLES = 3
_CANDIDATES = 50  # rows among which the examples are chosen
WRITTEN = 1.3  # bytes written for each byte read: the working rows and the final ones, compressed
_LOOKED = 20e6  # bytes of files that are looked at before anything runs
_PIECE = 64 * 2**20  # bytes of a working file


class Kept(NamedTuple):
    """A row that passed the filters, without its text."""

    id: str
    digest: str  # sha256 of its canonical content
    split: str  # given already for derived rows, else ""
    group: str = ""  # rows of one group stay together; "" = each is its own


@dataclass
class Work:
    """The cleaned rows between the two passes, and what was learned on the way."""

    folder: Path
    shape: shapes.Shape
    steps: list[str]
    funnel: "Funnel"
    examples: list[dict[str, str]] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    learned: int = 0  # rows read of files that are not held out as a whole
    first: dict[str, str] = field(default_factory=dict)  # step -> the place of the first row that it took


def run(context: "Context") -> None:
    """Write rows, dropped rows, clusters, funnel and examples into context.out; set context.output_hash."""
    derived = isinstance(context.config, dict)
    work = _derive(context) if derived else _read(context)
    if not work.kept:
        taken = [f"{messages.text(f'data.step.{step}')}: {count}" for step, count in work.funnel.dropped.items()]
        raise UserError("E204", read=work.funnel.read, evidence=taken)
    context.progress(0.6, 1, messages.text("data.deduplicating"))
    found = _duplicates(work, context)
    context.progress(0.8, 1, messages.text("data.writing"))
    drop = found.drop
    kept = [row for row in work.kept if row.id not in drop]
    splits = {row.id: row.split for row in kept} if derived else _places(kept, context.config, work.shape)
    _write(work, found, splits, context.out)
    shutil.rmtree(work.folder)
    if any(work.funnel.dropped.values()):
        context.view.line(_left_out(work))
    if leaked := _leaked(work, drop):
        context.view.line(messages.text("data.leaked", n=f"{leaked:,}"))
    context.facts |= {
        "bytes": work.funnel.bytes,
        "rows_read": work.funnel.read,
        "rows_kept": len(kept),
        "leaked": leaked,
    }
    context.output_hash = _output_hash(kept, splits)
    context.progress(1, 1, messages.text("data.kept", n=len(kept), m=work.funnel.read))


def look(node: "Node", loaded: "Loaded", paths: Sequence[Path]) -> None:
    """Find what the run would find at the beginning of its files; many bytes are left to it.

    Raises:
        UserError: E222, those to learn from hold no row; what `Reader.shape` raises of their columns.
    """
    from danlu.data import records

    if not node.raw:
        return
    config = node.config
    elsewhere = {
        file
        for named in config.held_out().values()
        for file in sources.discover(named, loaded.base, shape=config.shape)
    }
    own = [path for path in paths if path not in elsewhere]
    if sum(path.stat().st_size for path in own) > _LOOKED:
        return
    found = sources.describe(own, format=config.format, encoding=config.encoding, limit_mb=config.limit_mb)
    reader = records.Reader.of(config)
    if found and all(_is_empty(file, reader) for file in found):
        raise sources.hollow(found)
    reader.shape(found)


def _leaked(work: Work, drop: Mapping[str, str]) -> int:
    """How many rows to learn from were copies of rows that are held out."""
    held = _held_out(work)
    return sum(stays in held and gone not in held for gone, stays in drop.items())


def _is_empty(file: sources.SourceFile, reader: "Reader") -> bool:
    """Whether a file has no byte, or no record."""
    from danlu.data import formats

    return not file.path.stat().st_size or next(formats.read(file, reader.cut), None) is None


def _left_out(work: Work) -> str:
    """How many rows each step took, and where the first of them stands."""
    taken = [
        f"{count:,} {messages.text(f'data.step.{step}')}" + (f" ({work.first[step]})" if step in work.first else "")
        for step, count in work.funnel.dropped.items()
        if count
    ]
    return messages.text("data.left_out", read=f"{work.funnel.read:,}", taken=", ".join(taken))


# --- first pass: files -> cleaned rows -----------------------------------------------------------------


def _read(context: "Context") -> Work:
    from danlu.data import ledger, records

    config = context.config
    found = sources.describe(context.raw, format=config.format, encoding=config.encoding, limit_mb=config.limit_mb)
    reader = records.Reader.of(config)
    shape = reader.shape(found)
    if shape == "picture":
        _no_class_is_empty(context)
    if shape == "boxed" and config.limit_mb is None:
        _none_is_lone(reader, found, context)
    kinds = sorted({"code" if file.code else shape for file in found}, reverse=True)
    funnel = ledger.Funnel(bytes=sum(file.path.stat().st_size for file in found))
    disk.require(context.out, funnel.bytes * WRITTEN)
    work = Work(context.out / "work", shape, _steps(reader.plan, kinds), funnel)
    _collect(work, _records(reader, found, work, context), context)
    reader.check()
    if not work.learned:
        raise sources.hollow([file for file in found if file.path not in _given(context)] or found)
    return work


def _no_class_is_empty(context: "Context") -> None:
    """Say which folders of classes hold no picture.

    Raises:
        UserError: E279, some do, and the recipe does not skip what is bad.
    """
    from danlu.data import pictures

    if not (names := pictures.hollow(context.base / Path(each).expanduser() for each in context.config.path)):
        return
    if context.config.bad_records == "fail":
        raise UserError("E279", names=", ".join(names[:5]))
    context.view.line(messages.text("data.empty_classes", names=", ".join(names[:5])))


def _none_is_lone(reader: "Reader", found: Sequence[sources.SourceFile], context: "Context") -> None:
    """Tell of boxes in pictures that are not there."""
    if lone := reader.annotations.lone(file.path for file in found if file.format == "picture"):
        named = ", ".join(lone[:5]) + (", ..." if len(lone) > 5 else "")
        context.view.line(messages.text("data.lone", count=f"{len(lone):,}", names=named))


def _records(
    reader: "Reader", found: Sequence[sources.SourceFile], work: Work, context: "Context"
) -> Iterator["Record"]:
    done = 0
    places = _given(context)
    for file in found:
        for record in reader.records(file, work.shape):
            record.split = places.get(file.path, "")
            work.learned += not record.split
            yield record
        done += file.path.stat().st_size
        context.progress(0.6 * done / max(work.funnel.bytes, 1), 1, messages.text("data.reading", name=file.name))


def _given(context: "Context") -> dict[Path, str]:
    """The split of each file that the recipe names for one."""
    named = context.config.held_out().items()
    return {
        file: name
        for name, paths in named
        for file in sources.discover(paths, context.base, shape=context.config.shape)
    }


def _places(kept: Sequence[Kept], config: "Data", shape: shapes.Shape) -> dict[str, str]:
    """The split of each row: that of its file, else by its content where no file is held out for that split."""
    named = config.held_out()
    shares = {name: 0.0 if name in named else share for name, share in config.split.model_dump().items()}
    free = [row for row in kept if not row.split]
    keys = split.keys([(row.group, row.digest) for row in free], shapes.together(shape))
    places = split.assign([split.position(key) for key in keys], shares)
    return {row.id: row.split for row in kept} | {row.id: place for row, place in zip(free, places, strict=True)}


def _derive(context: "Context") -> Work:
    """Rows made from those of an earlier prepare folder; each stays in its row's split."""
    from danlu.data import derive, ledger, store

    make = derive.derivation(context.config["derive"])
    rows = context.inputs["rows"] / "rows"
    streams = [_derived(store.read(rows, name), make, name) for name in split.NAMES]
    made = heapq.merge(*streams, key=lambda record: record.id)
    first = list(itertools.islice(made, 1))
    shape = shapes.shape_of(first[0].row or {}) if first else None
    work = Work(context.out / "work", shape or "text", ["drop_empty", ledger.EXACT, ledger.NEAR], ledger.Funnel())
    work.funnel.bytes = sum(path.stat().st_size for path in rows.iterdir())
    _collect(work, itertools.chain(first, made), context)
    return work


def _derived(rows: Iterable[shapes.Row], make: "Derivation", place: str) -> Iterator["Record"]:
    from danlu.data import records

    for row in rows:
        for made in make(row):
            record = records.Record(made["id"], made["source"], shapes.loaded(made), split=place)
            yield records.cleaned(record, ["drop_empty"])


def _steps(plan: Mapping[str, Sequence[str]], kinds: Iterable[str]) -> list[str]:
    """The steps that can take rows away, in order, over all kinds of rows."""
    from danlu.data import ledger, records

    named = dict.fromkeys(step for kind in kinds for step in plan[kind] if step in filters.FILTERS)
    last = [ledger.EXACT, ledger.NEAR] if any(filters.DEDUP in plan[kind] for kind in kinds) else []
    return [records.BAD, *named, *last]


def _collect(work: Work, rows: Iterable["Record"], context: "Context") -> None:
    """Write cleaned records to the working folder; note those that are kept and count those that are not."""
    from danlu.data import records, store

    wanted = context.system.partitions
    piece = _PIECE if wanted == "auto" else max(1, work.funnel.bytes // wanted)
    columns = ["step", "reason", *_columns(work.shape)]
    with store.RowWriter(work.folder, "work", columns, shard=piece) as writer:
        for record in rows:
            work.funnel.read += 1
            stored = shapes.stored(record.row) if record.row else {}
            writer.add({**vars(record), "text": record.text, **stored})
            if record.step:
                work.funnel.dropped[record.step] += 1
                work.first.setdefault(record.step, record.source)
            else:
                work.kept.append(Kept(record.id, records.digest(record), record.split, records.group(record)))
                _exemplify(work, record)


def _columns(shape: shapes.Shape) -> list[str]:
    """Columns of the rows: `text` is all of a row as plain text, whatever its shape."""
    return list(dict.fromkeys(("id", "source", "text", *shapes.of(shape).COLUMNS, *shapes.of(shape).OPTIONAL)))


def _exemplify(work: Work, record: "Record") -> None:
    """Remember some rows before and after cleaning, those that changed above all."""
    if len(work.examples) < _EXAMPLES or (record.before and len(work.examples) < _CANDIDATES):
        before, after = record.before or record.text, record.text
        work.examples.append({"id": record.id, "source": record.source, "before": before, "after": after})


# --- second pass: duplicates, splits, files --------------------------------------------------------------


def _duplicates(work: Work, context: "Context") -> "Duplicates":
    from danlu.config import PICTURED, Dedup
    from danlu.data import dedup, ledger

    if ledger.EXACT not in work.steps:
        return dedup.Duplicates()
    config = getattr(context.config, "dedup", None) or Dedup()
    if work.shape in PICTURED:
        found = _lookalikes(work, config.correlation or shapes.of(work.shape).COPIES)
    else:
        frame = dedup.frame_of(work.folder, context.system.data)
        found = dedup.find(frame, threshold=config.threshold, ngram=config.ngram, size=config.size)
    return found if isinstance(context.config, dict) else dedup.spared(found, _held_out(work))


def _lookalikes(work: Work, least: float) -> "Duplicates":
    from danlu.data import lookalikes, store

    digests = {row.id: row.group for row in work.kept}
    rows = store.read(work.folder, "work", ["id", "phash"])
    prints = [lookalikes.Print(row["id"], digests[row["id"]], row["phash"]) for row in rows if row["id"] in digests]
    return lookalikes.find(prints, store.read(work.folder, "work", ["id", "image"]), least)


def _held_out(work: Work) -> set[str]:
    """Rows of files that the recipe names to be held out."""
    return {row.id for row in work.kept if row.split}


def _write(work: Work, found: "Duplicates", splits: Mapping[str, str], out: Path) -> None:
    from danlu.data import ledger

    shown = ledger.largest(found.clusters)
    heads = _write_rows(work, found, splits, out, {name for cluster in shown for name in cluster})
    ledger.write_clusters(out / "clusters.jsonl", shown, found.pairs, heads)
    examples = sorted((e for e in work.examples if e["id"] in splits), key=lambda e: e["before"] == e["after"])
    files.write_json(out / "examples.json", [{k: ledger.head(v) for k, v in e.items()} for e in examples[:_EXAMPLES]])
    files.write_json(out / "funnel.json", work.funnel.report(work.steps))


def _write_rows(
    work: Work, found: "Duplicates", splits: Mapping[str, str], out: Path, shown: set[str]
) -> dict[str, dict[str, str]]:
    """Kept rows to the shards of their split, the others to the dropped; returns source and head of the `shown`."""
    from danlu.data import ledger, store

    heads = {}
    columns = _columns(work.shape)
    with ExitStack() as stack:
        writers = {name: stack.enter_context(store.RowWriter(out / "rows", name, columns)) for name in split.NAMES}
        dropped = stack.enter_context(ledger.Dropped(out))
        for row in store.read(work.folder, "work"):
            if row["id"] in shown:
                heads[row["id"]] = {"source": row["source"], "text": ledger.head(row["text"])}
            if name := splits.get(row["id"]):
                writers[name].add(row)
                work.funnel.splits[name] += 1
                continue
            reason = row["reason"] or (ledger.EXACT if row["id"] in found.exact else ledger.NEAR)
            work.funnel.dropped[reason] += not row["reason"]
            dropped.add(row, reason)
    return heads


def _output_hash(kept: Iterable[Kept], splits: Mapping[str, str]) -> str:
    """sha256 over (id, split, content digest) in order of id."""
    digest = hashlib.sha256()
    for row in sorted(kept):
        digest.update(f"{row.id}\t{splits[row.id]}\t{row.digest}\n".encode())
    return digest.hexdigest()
