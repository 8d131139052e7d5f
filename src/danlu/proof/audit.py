"""What is learned, token by token, and what a position can see."""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danlu.messages import text
from danlu.modalities.chat import END, END_TURN, ROLES
from danlu.modalities.text import Text
from danlu.nn.losses import IGNORE
from danlu.nn.network import DECODER
from danlu.proof.certificate import Check, Shown
from danlu.proof.gradients import batch_of, numbers_of, side_by_side
from danlu.proof.twin import Twin
from danlu.randomness import generator
from danlu.tasks.task import Batch, Row

_SHOWN_ROWS, _SHOWN_TOKENS = 2, 96
ASSISTANT = "assistant"
assert ASSISTANT in ROLES


# --- the loss mask ---


def mask(twin: Twin) -> Check:
    """Rows whose learned tokens are not exactly what they should be, of the batches that training would see."""
    if twin.architecture.core.memory:
        return _given(twin) if "parts" in twin.columns().names else _written(twin)
    if twin.task.judges:
        return _labels(twin)
    if not twin.task.ahead:
        return _hidden(twin)
    processor, found = twin.task.processor, _learned(twin)
    wrong, rows = 0, list[list[Shown]]()
    for index, (tokens, learned) in sorted(found.items()):
        said = _said(processor, [token for token, counts in zip(tokens, learned, strict=True) if counts])
        wanted = _wanted(twin, twin.rows[index])
        bad = not _matches(processor, said, wanted)
        wrong += bad
        if bad or len(rows) < _SHOWN_ROWS:
            rows.append(_shown(processor, tokens, learned))
    return Check(
        "mask", float(wrong) if found else float("nan"), 0.0, text("proof.rows", count=len(found)), rows[-_SHOWN_ROWS:]
    )


def _labels(twin: Twin) -> Check:
    """Rows that do not carry their labels, or carry others beside them, in the batches that training would see.

    So with what stands beside as a whole: pixels, and their classes.
    """
    loader, offsets = twin.loader(), np.asarray(twin.columns().offsets("input_ids"))
    wrong = 0
    for place, group in enumerate(loader.groups):
        batch = loader.assemble([place])
        at = 0
        for number, window in enumerate(group):
            size = int(loader.windows.length[window])
            example = twin.examples[int(np.searchsorted(offsets, loader.windows.start[window], side="right")) - 1]
            wrong += any(not np.array_equal(batch[name][number].numpy(), example[name]) for name in loader.whole)
            if "labels" not in example:
                continue
            said = batch["labels"][0][at : at + size].numpy()
            at += size
            wrong += not np.array_equal(said, example["labels"], equal_nan=said.dtype.kind == "f")
    return Check("mask", float(wrong), 0.0, text("proof.rows", count=len(loader.windows)))


def _hidden(twin: Twin) -> Check:
    """Rows that hide a control token, or are not themselves again with each label in the place of its token.

    Not a number where nothing is hidden. Shown are rows as the network sees them, with what is learned marked.
    """
    processor, wrong, hidden, rows = twin.task.processor, 0, 0, list[list[Shown]]()
    control = set(processor.control.values())
    for seen, labels, meant in _masked(twin):
        again = [token if label == IGNORE else label for token, label in zip(seen, labels, strict=True)]
        bad = again != meant or not control.isdisjoint(labels)
        learned = [label != IGNORE for label in labels]
        wrong, hidden = wrong + bad, hidden + sum(learned)
        if bad or len(rows) < _SHOWN_ROWS:
            rows.append(_shown(processor, seen, learned))
    about = text("proof.rows", count=len(twin.loader().windows))
    return Check("mask", float(wrong) if hidden else float("nan"), 0.0, about, rows[-_SHOWN_ROWS:])


def _masked(twin: Twin) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Of each window that training would see: its tokens as shown, their labels, and the tokens as they were."""
    loader, offsets = twin.loader(), np.asarray(twin.columns().offsets("input_ids"))
    windows = (window for group in loader.groups for window in group)
    for (batch, segment), window in zip(_seen(twin), windows, strict=True):
        seen, learned = batch["segment_ids"][0] == segment, batch[numbers_of("labels", batch)][0] == segment
        start, size = int(loader.windows.start[window]), int(loader.windows.length[window])
        index = int(np.searchsorted(offsets, start, side="right")) - 1
        first = start - int(offsets[index])
        meant = list(twin.examples[index]["input_ids"][first : first + size])
        yield batch["input_ids"][0][seen].tolist(), batch["labels"][0][learned].tolist(), meant


def _seen(twin: Twin) -> Iterator[tuple[Batch, int]]:
    """Of each window that training would see: the batch, and the number that its tokens have there."""
    loader = twin.loader()
    for place, group in enumerate(loader.groups):
        batch = twin.task.corrupt(loader.assemble([place]), generator(twin.seed, "proof", place))
        yield from ((batch, segment) for segment in range(1, len(group) + 1))


def _written(twin: Twin) -> Check:
    """Rows that hide a control token, or are not themselves again with what is written behind each sentinel in its
    place, or where the decoder does not read what stands before each label. Not a number where nothing is hidden.
    """
    processor, wrong, hidden, rows = twin.task.processor, 0, 0, list[list[Shown]]()
    control = set(processor.control.values())
    for (seen, _, meant), (before, labels) in zip(_masked(twin), _told(twin), strict=True):
        spans = _spans(labels[:-1], control)
        used = [token for token in seen if token in spans]
        again = [each for token in seen for each in spans.get(token, [token])]
        follows = before == [processor.pad_id, *labels[:-1]] and labels[-1] == processor.end_id
        bad = again != meant or not follows or list(spans)[:-1] != used or list(spans.values())[-1:] != [[]]
        wrong, hidden = wrong + bad, hidden + sum(map(len, spans.values()))
        if bad or len(rows) < _SHOWN_ROWS:
            rows.append(_shown(processor, [*seen, *labels], [False] * len(seen) + [True] * len(labels)))
    about = text("proof.rows", count=len(twin.loader().windows))
    return Check("mask", float(wrong) if hidden else float("nan"), 0.0, about, rows[-_SHOWN_ROWS:])


def _given(twin: Twin) -> Check:
    """Rows that are not read up to their first end and written from there, or where the decoder does not read what
    stands before each label.
    """
    task: Any = twin.task
    processor, start, wrong, rows = task.processor, task.start_id, 0, list[list[Shown]]()
    for (seen, _, meant), (before, labels) in zip(_masked(twin), _told(twin), strict=True):
        ends = seen[-1:] == labels[-1:] == [processor.end_id] and processor.end_id not in seen[:-1]
        bad = [*seen, *labels] != meant or before != [start, *labels[:-1]] or not ends
        wrong += bad
        if bad or len(rows) < _SHOWN_ROWS:
            rows.append(_shown(processor, [*seen, *labels], [False] * len(seen) + [True] * len(labels)))
    return Check("mask", float(wrong), 0.0, text("proof.rows", count=len(twin.loader().windows)), rows[-_SHOWN_ROWS:])


def _spans(labels: Sequence[int], control: set[int]) -> dict[int, list[int]]:
    """What is written behind each control token."""
    spans = dict[int, list[int]]()
    span: list[int] = []
    for token in labels:
        if token in control:
            span = spans[token] = []
        else:
            span.append(token)
    return spans


def _told(twin: Twin) -> Iterator[tuple[list[int], list[int]]]:
    """Of each window that training would see: what the decoder reads, and what it is to write."""
    for batch, segment in _seen(twin):
        here = batch[DECODER + "segment_ids"][0] == segment
        yield batch[DECODER + "input_ids"][0][here].tolist(), batch["labels"][0][here].tolist()


def _learned(twin: Twin) -> dict[int, tuple[list[int], list[bool]]]:
    """By row: its tokens as the network sees them, and whether each is a target that counts."""
    loader, offsets = twin.loader(), np.asarray(twin.columns().offsets("input_ids"))
    found: dict[int, tuple[list[int], list[bool]]] = {}
    places = {int(w): (row, n) for row, group in enumerate(loader.groups) for n, w in enumerate(group, 1)}
    for window in range(len(loader.windows)):
        row, segment = places[window]
        index = int(np.searchsorted(offsets, loader.windows.start[window], side="right")) - 1
        tokens, learned = found.setdefault(index, ([], []))
        after = int(loader.windows.start[window] + loader.windows.length[window])
        _extend(tokens, learned, loader.assemble([row]), segment, int(loader.tokens[after : after + 1][0]))
    return found


def _extend(tokens: list[int], learned: list[bool], batch: Batch, segment: int, last: int) -> None:
    """Append a window: the token after each of its inputs, of which `last` is no input itself.

    A token is learned where the label beside the input before it is that very token.
    """
    here = batch["segment_ids"][0] == segment
    inputs, labels = batch["input_ids"][0][here].tolist(), batch["labels"][0][here].tolist()
    if not tokens:
        tokens.append(inputs[0])
        learned.append(False)
    following = [*inputs[1:], last]
    tokens += following
    learned += [label == token for token, label in zip(following, labels, strict=True)]


def _wanted(twin: Twin, row: Row) -> list[str]:
    """The texts that should be learned, each with the control token that ends it."""
    if "loss_mask" not in twin.columns().names:
        return [row["text"], END]
    if row.get("messages"):
        import json

        turns: list[Any] = json.loads(row["messages"]) if isinstance(row["messages"], str) else row["messages"]
        return [part for turn in turns if turn["role"] == ASSISTANT for part in (turn["content"], END_TURN)]
    return [row["completion"], END]


def _matches(processor: Text, said: str, wanted: Sequence[str]) -> bool:
    """Whether the learned text is the wanted one.

    The line end before an answer may be learned with it where the answer begins with white space: the tokenizer can
    make one token of both.
    """
    rest = said
    for part in wanted:
        plain = part if part in processor.control else _canonical(processor, part)
        if not rest.startswith(plain) and plain[:1].isspace() and rest.startswith("\n"):
            rest = rest[1:]
        if not rest.startswith(plain):
            return False
        rest = rest[len(plain) :]
    return not rest


def _canonical(processor: Text, text: str) -> str:
    """A text as its tokens say it: WordPiece keeps neither case nor spaces, the others all characters."""
    return _said(processor, processor.encode(text)) if processor.kind == "wordpiece" else _composed(text)


def _said(processor: Text, tokens: Sequence[int]) -> str:
    """The text of tokens, control tokens by name."""
    names = {index: name.encode() for name, index in processor.control.items()}
    return _composed(b"".join(names.get(t) or processor.piece(t) for t in tokens).decode(errors="replace"))


def _composed(text: str) -> str:
    """Tokenizers of other models compose characters before they encode."""
    return unicodedata.normalize("NFC", text)


def _shown(processor: Text, tokens: Sequence[int], learned: Sequence[bool]) -> list[Shown]:
    """The row around its first learned token."""
    first = max(0, (learned.index(True) if True in learned else 0) - _SHOWN_TOKENS // 3)
    here = slice(first, first + _SHOWN_TOKENS)
    return list(zip(processor.show(tokens[here]), learned[here], strict=True))


# --- attention ---


@torch.no_grad()
def attention(twin: Twin) -> Check:
    """The largest change of an output by tokens that it must not see: of other documents, and later ones.

    Not a number where a token that it must see changes nothing: then nothing was compared.
    """
    net, batch = twin.exact().eval(), _two_documents(side_by_side(batch_of(twin)))
    before = net.hidden(batch)
    sides = [side for side in ("", DECODER) if f"{side}input_ids" in batch]  # the states are those of the last
    numbers = [batch[f"{side}segment_ids"] for side in sides]
    segments, position = numbers[-1], batch[f"{sides[-1]}position_ids"]

    def changed(*where: Tensor) -> Tensor:
        found = batch
        for side, places in zip(sides[-len(where) :], where, strict=True):
            found = _other(found, places, twin, side)
        states: Tensor = net.hidden(found)
        return states

    first, others = [each == 1 for each in numbers], [each > 1 for each in numbers]
    worst = [_change(changed(*one), before, two[-1]) for one, two in ((first, others), (others, first))]
    if twin.architecture.core.mask == "causal":
        later = position >= position.amax(1, keepdim=True) // 2
        worst.append(_change(changed(later), before, ~later & (segments > 0)))
    opening = [(batch[f"{side}position_ids"] == 0) & (each > 0) for side, each in zip(sides, numbers, strict=True)]
    still = (segments > 0) & ~opening[-1]
    seen = _change(changed(*opening[:1], *(torch.zeros_like(each) for each in opening[1:])), before, still)
    return Check("attention", max(worst) if seen > 0 else float("nan"), 0.0)


def _two_documents(batch: Batch) -> Batch:
    """Where a row holds a single document it is cut in two, so that there is another one."""
    segments, position = batch["segment_ids"].clone(), batch["position_ids"].clone()
    for row in range(len(segments)):
        if int(segments[row].max()) == 1:
            half = int((segments[row] == 1).sum()) // 2
            end = int((segments[row] == 1).sum())
            segments[row, half:end] = 2
            position[row, half:end] -= half
    return batch | {"segment_ids": segments, "position_ids": position}


def _other(batch: Batch, where: Tensor, twin: Twin, side: str) -> Batch:
    """The batch with another token in each of these places of a side."""
    ids = batch[f"{side}input_ids"]
    return batch | {f"{side}input_ids": torch.where(where, (ids + 1) % twin.architecture.tokens.vocab, ids)}


def _change(after: Tensor, before: Tensor, where: Tensor) -> float:
    """The largest difference in these places."""
    return float((after - before)[where].abs().max()) if bool(where.any()) else 0.0
