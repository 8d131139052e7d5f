"""What an explanation holds, and how it is made of any model, whatever its task.

Shapes: N copies of an example · T places
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from danlu.errors import UserError
from danlu.explain import deletion
from danlu.explain.gradients import complete, integrated
from danlu.explain.rollout import rollout
from danlu.modalities.chat import prompted
from danlu.modalities.modality import Word
from danlu.nn.convolutions import Convolutions
from danlu.nn.embed import Tokens
from danlu.nn.network import EncoderDecoder, Pictures, Towers
from danlu.nn.stems import Cells, Patches
from danlu.tasks.task import Answer, Example, Row

if TYPE_CHECKING:
    from danlu.model import Model

Batch = dict[str, Tensor]
_TOGETHER = 16  # copies of one pass
_WRITTEN = 64  # tokens of a text that is written of which each is explained
GRADIENTS, ATTENTION, RANDOM = "gradients", "attention", "random"


@dataclass(frozen=True)
class Explanation:
    """Why an answer: `number` is what the model gave the answer `name`, `blank` what it gives where nothing is said.

    `scores[GRADIENTS]` are the words' parts of the difference, but for `gap`; `scores[ATTENTION]`, where the model has
    such, what may flow from them. `curves` say how the `share` of the answer falls when words go, the highest first,
    at each of `gone`; `faithfulness` how much sooner than at random. `left_out` tokens of the text are not read. Of a
    text that is written `each` says of every token its own number, and the words' parts of that.
    """

    name: str
    number: float
    blank: float
    share: float
    words: Sequence[Word]
    scores: Mapping[str, Sequence[float]]
    points: int
    gap: float
    gone: Sequence[int]
    curves: Mapping[str, Sequence[float]]
    faithfulness: Mapping[str, float]
    left_out: int = 0
    seen: Any = None  # of a picture: pictures.Seen
    each: Sequence[tuple[str, float, Sequence[float]]] = ()

    def table(self) -> dict[str, Any]:
        """As JSON."""
        rows = [{"word": word.text.strip()} | {name: each[place] for name, each in self.scores.items()}
                for place, word in enumerate(self.words) if not word.fixed]  # fmt: skip
        deleted = {"words": list(self.gone), "share": {name: list(each) for name, each in self.curves.items()}}
        told = {"explained": self.name, "number": self.number, "blank": self.blank, "share": self.share}
        made = {"points": self.points, "gap": self.gap, "faithfulness": dict(self.faithfulness)}
        regions: dict[str, Any] = {"regions": {"side": self.seen.side, "across": self.seen.across}} if self.seen else {}
        free = [place for place, word in enumerate(self.words) if not word.fixed]
        written = [{"token": name, "number": number, GRADIENTS: [parts[place] for place in free]}
                   for name, number, parts in self.each]  # fmt: skip
        regions |= {"written": written} if written else {}
        return told | {"words": rows, "deletion": deleted} | made | {"left_out": self.left_out} | regions


def explain(model: "Model", row: Row, wanted: str = "") -> Explanation:
    """Why a model answers a row so; or what speaks for another answer, which is named.

    Raises:
        UserError: E609 the model has no words or no number to explain, E610 it does not know that answer, E611 the row
            says nothing; those of `predict`.
    """
    net, training = model.net, model.net.training
    apart = isinstance(net, Towers) or (isinstance(net, EncoderDecoder) and model.task.ahead)
    if apart or not isinstance(net.embed, Tokens | Cells | Patches | Convolutions):
        raise UserError("E609", task=model.task_name)
    examples, left_out = _read(model, row)
    if not any(not word.fixed for each in examples for word in model.processor.words(each)):
        raise UserError("E611")
    net.eval()
    try:
        place, answer = model.task.explained(net, [_batch(model, each) for each in examples], wanted)
        return replace(_explained(model, examples[place], answer), left_out=left_out)
    finally:
        net.train(training)


def _explained(model: "Model", example: Example, answer: Answer) -> Explanation:
    if isinstance(model.net, Pictures):
        from danlu.explain import pictures

        return pictures.explain(model, example, answer)
    return Case(model, example, answer).explained()


def unread(model: "Model", row: Row) -> int:
    """How many tokens of a row an answer to it does not rest on."""
    return _read(model, row)[1]


def _read(model: "Model", row: Row) -> tuple[list[Example], int]:
    """What is read of a row, as an answer to it is: several windows of a long one; and how many tokens are not."""
    task = model.task
    if task.ahead:  # it goes on after the end of a text
        ids = prompted(model.processor, row["text"], chat=model.taught_chat)
        return [{"input_ids": ids[1 - model.context :]}], max(0, len(ids) - model.context + 1)
    examples = task.asking(row)
    if task.long == "windows" or isinstance(model.net.embed, Cells):
        return examples, 0
    (whole,) = type(task)(model.processor, task.labels, None, task.chosen).asking(row)
    return examples, max(0, len(whole["input_ids"]) - sum(len(each["input_ids"]) for each in examples))


def _batch(model: "Model", example: Example) -> Batch:
    return {name: each.to(model.net.device) for name, each in model.processor.collate([example]).items()}


class Case:
    """One example, with any of its words gone."""

    bend = 1  # of the way along which gradients are taken

    def __init__(self, model: "Model", example: Example, answer: Answer):
        self.net, self.answer, self.words = model.net, answer, self.words_of(model, example)
        self.free = [place for place, word in enumerate(self.words) if not word.fixed]
        self._real, *self._blanks = (_batch(model, each) for each in (example, *model.task.blanks(example)))
        self.share = self.shares([[]])[0]

    def words_of(self, model: "Model", example: Example) -> Sequence[Word]:
        return model.processor.words(example)

    def without(self, gone: Sequence[Sequence[int]], blank: Batch | None = None) -> Batch:
        """Copies of the example, each with these of its words blank."""
        blank = blank or self._blanks[0]
        mask = torch.zeros(len(gone), self._real["input_ids"].shape[1], dtype=torch.bool)
        for copy, words in enumerate(gone):
            mask[copy, list(chain.from_iterable(self.words[word].places for word in words))] = True
        mask = mask.to(self.net.device)
        return {name: torch.where(mask, blank[name], each) for name, each in self._real.items()}

    def number(self, batch: Batch) -> Tensor:
        return self.answer.figures(batch)[0]

    @torch.no_grad()
    def shares(self, gone: Sequence[Sequence[int]]) -> list[float]:
        """The share of the answer when these words are gone, the mean over the blanks."""
        parts = [gone[at : at + _TOGETHER] for at in range(0, len(gone), _TOGETHER)]
        found = [torch.cat([self.answer.figures(self.without(part, blank))[1] for part in parts])
                 for blank in self._blanks]  # fmt: skip
        mean: list[float] = torch.stack(found).mean(0).tolist()
        return mean

    def explained(self) -> Explanation:
        with torch.no_grad():
            number = float(self.number(self.without([[]]))[0])
            blank = sum(float(self.number(self.without([self.free], each))[0]) for each in self._blanks)
            blank /= len(self._blanks)
        found, points, gap = complete(self._integrated, number - blank)
        flow = rollout(self._reader, self.number, self.without([[]]))
        scores = {GRADIENTS: self._by_word(found)} | ({} if flow is None else {ATTENTION: self._by_word(flow)})
        orders = {name: sorted(self.free, key=lambda word: -each[word]) for name, each in scores.items()}
        curves = {name: deletion.curve(self.shares, order) for name, order in orders.items()}
        curves[RANDOM] = deletion.at_random(self.shares, self.free)
        gone = deletion.steps(len(self.free))
        faith = {name: deletion.faithfulness(curves[name], curves[RANDOM], gone) for name in scores}
        each = [self._part(part, points) for part in self.answer.parts[:_WRITTEN]]
        return Explanation(
            self.answer.name, number, blank, self.share, self.words, scores, points, gap, gone, curves, faith, each=each
        )

    def _part(self, part: Answer, points: int) -> tuple[str, float, list[float]]:
        """A part of the answer: its name, its number, and what of that each word brings."""
        with torch.no_grad():
            number = float(part.figures(self.without([[]]))[0][0])
        return part.name, number, self._by_word(self._integrated(points, lambda batch: part.figures(batch)[0]))

    def _integrated(self, points: int, number: Callable[[Batch], Tensor] | None = None) -> Tensor:
        """The mean over the blanks (expected gradients: Erion et al. 2019, 1906.10670)."""
        asked = number or self.number
        with torch.no_grad():
            end = self._vectors(self.without([[]]))
            starts = [self._vectors(self.without([self.free], each)) for each in self._blanks]
        ways = [integrated(asked, self._source, lambda n: self.without([[]] * n), (start, end), points,
                           self.bend)
                for start in starts]  # fmt: skip
        return torch.stack(ways).mean(0)

    @property
    def _source(self) -> nn.Module:
        """What gives the vectors that lie between nothing and the example."""
        made: nn.Module = self._reader.embed
        return made

    @property
    def _reader(self) -> Any:
        """What reads the example: the network, or its encoder."""
        return self.net.encoder if isinstance(self.net, EncoderDecoder) else self.net

    def _vectors(self, batch: Batch) -> Tensor:
        """What the network's embedding gives (N, T, D), while it reads a batch."""
        found = list[Tensor]()
        handle = self._reader.embed.register_forward_hook(lambda module, given, out: found.append(out))
        try:
            self.number(batch)
        finally:
            handle.remove()
        return found[0]

    def _by_word(self, places: Tensor) -> list[float]:
        return [float(places[list(word.places)].sum()) for word in self.words]
