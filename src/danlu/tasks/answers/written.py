"""What tasks share in which an encoder reads one text and a decoder writes another: the two sides of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from danlu import models
from danlu.errors import UserError
from danlu.models.architecture import Architecture
from danlu.nn.generate import write
from danlu.nn.losses import wide
from danlu.nn.masks import segment_positions
from danlu.nn.network import DECODER
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Answer, Batch

EVEN = 32  # columns of a batch are a multiple of it, so that few shapes occur
LONGEST = 512  # tokens of a text that a model reads of which no context is known


class Written(LanguageModeling):
    """Read and written apart (1706.03762): input_ids (B, S) are read, labels (B, T) written, each after what stands
    before it, decoder_input_ids (B, T); -100 = not counted. Texts of one row are told apart by segment_ids on both
    sides.
    """

    arch: str
    archs: tuple[str, ...] = ()

    def shaped(self, architecture: Architecture) -> Architecture:
        suited = self.archs or (self.arch,)
        if models.carrier(architecture) not in suited:
            raise UserError("E349", task=self.name, forms=", ".join(suited))
        return architecture

    @property
    def start_id(self) -> int:
        """What the decoder reads before the first token that it writes."""
        start: int = self.processor.pad_id
        return start

    def named(self, text: str) -> list[int]:
        """The ids that are to be written for a text, its end among them."""
        (example,) = self.asking({"text": text})
        ids: list[int] = example["input_ids"]
        return ids

    def answer(self, net: Any, batch: Batch, wanted: str = "") -> Answer:
        """The logarithm of the share of a text, the likeliest or the one that is named, and that of each of its tokens.

        The share that stands for it is that of a token, on a geometric average.
        """
        start, end = self.start_id, self.processor.end_id
        likeliest = [] if wanted else [*write(net, batch, start, end, self.limit)[0], end]
        told = self.named(wanted) if wanted else likeliest

        def shares(seen: Batch) -> Tensor:
            ids = torch.tensor([told], device=net.device).expand(len(seen["input_ids"]), -1)
            before = ids.roll(1, 1).index_fill(1, torch.tensor([0], device=net.device), start)
            logits = wide(net({**seen, net.continues: before}))
            return logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]

        def figures(seen: Batch) -> tuple[Tensor, Tensor]:
            found = shares(seen)
            return found.sum(1), found.mean(1).exp()

        def part(place: int) -> Callable[[Batch], tuple[Tensor, Tensor]]:
            return lambda seen: (shares(seen)[:, place], shares(seen)[:, place].exp())

        parts = [Answer(name, part(place)) for place, name in enumerate(self.processor.show(told))]
        return Answer(self.processor.decode(told), figures, parts)

    @property
    def limit(self) -> int:
        """Tokens of an answer, at most."""
        return self.context or LONGEST

    def both(self, ids: Tensor, segments: Tensor, labels: Tensor, written: Tensor) -> Batch:
        """What both sides read, and what is written, with the numbers of the texts that each column belongs to."""
        read, places = segment_positions(segments), segment_positions(written)
        before = labels.roll(1, 1).masked_fill(places == 0, self.start_id)
        return {
            "input_ids": ids,
            "segment_ids": segments,
            "position_ids": read,
            DECODER + "input_ids": before,
            DECODER + "segment_ids": written,
            DECODER + "position_ids": places,
            "labels": labels,
        }


def laid(segments: Tensor, parts: Sequence[tuple[Tensor, Tensor]], filler: int) -> tuple[Tensor, Tensor]:
    """At each place in turn the values (B, T) of the parts that hold there, one behind the other -> (B, W) both.

    With them goes the number of the text they are of, 0 behind the last.
    """
    holds, values = (torch.stack(each, -1) for each in zip(*parts, strict=True))  # (B, T, parts), as they stand
    lengths = holds.flatten(1).sum(1)
    width = -(-int(lengths.max()) // EVEN) * EVEN or EVEN
    real = torch.arange(width) < lengths[:, None]
    texts = segments[..., None].expand_as(holds)
    made, numbers = (torch.full(real.shape, each, dtype=segments.dtype) for each in (filler, 0))
    return made.masked_scatter_(real, values[holds]), numbers.masked_scatter_(real, texts[holds])
