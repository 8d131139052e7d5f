"""Embedding, stack and head as one network.

Shapes: B batch · T time · S time of the source · D width · V vocabulary
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from danlu.nn.convolutions import Convolutions
from danlu.nn.embed import Tokens
from danlu.nn.heads import Joint, Label, Pair, Vocabulary, pooled
from danlu.nn.masks import across_mask, segment_mask, segment_positions
from danlu.nn.painting import Pixels, along, grid
from danlu.nn.queries import Queries
from danlu.nn.stems import Cells, Frames, Patches
from danlu.nn.transformer import Transformer

if TYPE_CHECKING:
    from danlu.nn.cache import Cache

Batch = dict[str, Tensor]


DECODER = "decoder_"  # before the names of columns that a decoder reads, beside an encoder's


class Stack(nn.Module):
    """One stack behind its embedding.

    A batch holds input_ids (B, T), or what the embedding reads instead; and may hold position_ids (B, T), type_ids
    (B, T) and segment_ids (B, T), where tokens with the same number see each other and 0 is padding; with a cache also
    slots (B,), the slot of each row. A cache reads slots, position_ids and segment_ids on the host.
    """

    def __init__(self, embed: Tokens | Patches | Frames | Cells, core: Transformer) -> None:
        super().__init__()
        self.embed, self.core = embed, core

    def states(
        self, batch: Batch, cache: Cache | None = None, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """The states after the last layer (B, T, D); memory (B, S, M) with memory_mask bool (B, 1, 1 or T, S)."""
        values, segments, positions = batch[self.embed.reads], batch.get("segment_ids"), batch.get("position_ids")
        rows = mask = None
        if cache is not None:
            rows = cache.rows((values.shape[0], values.shape[1]), batch.get("slots"), positions, segments)
            positions = rows.positions
        elif segments is not None:
            mask = segment_mask(segments)
            positions = segment_positions(segments) if positions is None else positions
        x = self.embed(values, positions, batch.get("type_ids"))
        return self.core(x, positions=positions, mask=mask, cache=rows, memory=memory, memory_mask=memory_mask)


class Network(Stack):
    """A stack and a head."""

    continues: ClassVar = "input_ids"  # the column of the tokens that generation adds to

    def __init__(
        self, embed: Tokens | Patches | Cells, core: Transformer, head: Vocabulary | Label | Joint | Pair
    ) -> None:
        super().__init__(embed, core)
        self.head = head

    @property
    def places(self) -> int:
        """Places of the stack for each of a batch."""
        return 1

    @property
    def depth(self) -> int:
        """The dial that its family was made by."""
        return int(getattr(self.embed.config, "depth", self.core.config.layers))

    def adopt(self, other: Network) -> None:
        """Take over another's embedding and stack, and the encoder of a pair of stacks."""
        self.embed, self.core = other.embed, other.core
        if isinstance(self, EncoderDecoder) and isinstance(other, EncoderDecoder):
            self.encoder: Stack = other.encoder
        table = self.embed.tokens if isinstance(self.embed, Tokens) else None
        for module in self.modules() if table is not None else ():
            if isinstance(module, Vocabulary):
                module.tie(table)  # type: ignore[arg-type]
            elif isinstance(module, Tokens) and module is not self.embed:
                module.share(table)

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in, whatever the weights are stored as."""
        return self.embed.dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def kept(self) -> int:
        """Numbers that convolutions before the stack keep for backward, of one token or picture."""
        return int(getattr(self.embed.config, "kept", 0))

    def hidden(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """The states after the last layer (B, T, D)."""
        return self.states(batch, cache)

    def forward(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """Logits: (B, T, V) over the vocabulary, or over labels (N, C) of segments or (B, T, C); both of a Joint."""
        return self.head(self.head.pool(self.hidden(batch, cache), batch))


class Records(Network):
    """Rows of tables: the cells of each are summed to one state, which a stack without attention works on.

    A batch holds input_ids and values (B, T), and segment_ids (B, T) where one of its rows holds several of the table.
    """

    embed: Cells

    def hidden(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """The states after the last layer (N, 1, D), one for each row of the table."""
        cells = self.embed(batch["input_ids"], batch["values"])
        rows = pooled(cells, batch.get("segment_ids"), "sum") + self.embed.bias.to(cells.dtype)
        return self.core(rows[:, None])

    def forward(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """Logits (N, C)."""
        logits: Tensor = self.head(self.hidden(batch, cache)[:, 0])
        return logits


class Pictures(Network):
    """Pictures, each of which is one place of a batch: what the stack works on are its patches, or pixels of a stage.

    A batch holds pixel_values (N, C, H, H), those of its segments in order.
    """

    embed: Patches | Convolutions  # type: ignore[assignment]

    @property
    def places(self) -> int:
        return 1 if isinstance(self.embed, Convolutions) else self.embed.config.count

    @property
    def flops(self) -> float:
        """Operations of a forward pass of its convolutions over one picture."""
        return self.embed.config.flops if isinstance(self.embed, Convolutions) else 0.0

    def hidden(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """The states after the last layer (N, T, D), T of each picture."""
        return self.core(self.embed(batch[self.embed.reads]))

    def features(self, batch: Batch) -> Tensor:
        """What the head makes its answer of (N, D)."""
        assert isinstance(self.head, Label)
        states = self.hidden(batch)
        whole = {"mean": lambda: states.mean(1), "max": lambda: states.amax(1)}.get(self.head.config.pool)
        return whole() if whole else self.head.pool(states, {})

    def forward(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """Logits (N, C)."""
        logits: Tensor = self.head(self.features(batch))
        return logits


class Reconstruction(Pictures):
    """Pictures of which some patches are hidden, and all are painted from those that are seen (MAE, 2111.06377).

    A batch holds pixel_values (N, C, H, H), and the places of what is seen, shown (N, V); without it, all is.
    """

    embed: Patches

    def __init__(self, embed: Patches, core: Transformer, head: Pixels) -> None:
        super().__init__(embed, core, head)  # type: ignore[arg-type]

    @property
    def places(self) -> int:
        return 1 + self._painter.config.seen

    @property
    def flops(self) -> float:
        """Operations of a forward pass over one picture: of the patches that are seen, then of all."""
        painter = self._painter
        first, second = (sum(p.numel() for p in part.parameters() if p.ndim == 2) for part in (self.core, painter))
        return 2.0 * (first * self.places + second * (1 + painter.config.patches))

    @property
    def kept(self) -> int:
        """Numbers that the decoder keeps of one picture for backward."""
        core, count = self._painter.core.config, 1 + self._painter.config.patches
        return count * core.layers * (5 * core.dim + 9 * core.heads * core.head_dim + 4 * core.hidden)

    @property
    def tables(self) -> list[nn.Embedding]:
        """Those of places: of the encoder, where it has one, and of the decoder."""
        own = self.embed.positions
        return [*([] if own is None else [own]), self._painter.positions]

    @property
    def _painter(self) -> Pixels:
        assert isinstance(self.head, Pixels)
        return self.head

    def forward(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """(N, patches, numbers of each)."""
        x, shown = self.embed(batch["pixel_values"]), batch.get("shown")
        if shown is not None:
            x = torch.cat((x[:, :1], x[:, 1:].gather(1, along(shown, x))), 1)
        painted: Tensor = self._painter(self.core(x), shown)
        return painted


class Detection(Pictures):
    """Pictures whose places a stack reads, as their convolutions see them, and a decoder is asked about (DETR).

    A batch holds pixel_values (N, C, H, H). The places are told by sines and cosines, once, where the stack begins: the
    paper adds them in every layer, and measured the way taken here, too (2005.12872, table 3).
    """

    embed: Convolutions

    def __init__(self, embed: Convolutions, core: Transformer, head: Queries) -> None:
        super().__init__(embed, core, head)  # type: ignore[arg-type]

    @property
    def places(self) -> int:
        return self.embed.config.last**2

    @property
    def flops(self) -> float:
        """Operations of a forward pass over one picture: convolutions, then every weight of both stacks per place."""
        asked = self._asked
        passing = self.places * _matrices(self.core) + asked.config.queries * _matrices(asked)
        return self.embed.config.flops + 2.0 * passing

    @property
    def kept(self) -> int:
        """Numbers that convolutions and decoder keep of one picture for backward."""
        core, count = self._asked.core.config, self._asked.config.queries
        each = count * (8 * core.dim + 18 * core.heads * core.head_dim + 4 * core.hidden)
        return super().kept + core.layers * (each + 4 * self.places * core.heads * core.head_dim)

    @property
    def _asked(self) -> Queries:
        assert isinstance(self.head, Queries)
        return self.head

    def hidden(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """The encoder's states (N, S, D), row by row."""
        x = self.embed(batch[self.embed.reads])
        return self.core(x + grid(isqrt(x.shape[1]), x.shape[2])[1:].to(x))

    def forward(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """Answers (N, Q, 4 + C + 1)."""
        answers: Tensor = self._asked(self.hidden(batch))
        return answers

    def layers(self, batch: Batch) -> list[Tensor]:
        """What each layer of the decoder answers; the last is what `forward` says."""
        return self._asked.layers(self.hidden(batch))


def _matrices(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters() if p.ndim == 2)


class EncoderDecoder(Network):
    """A decoder that attends to what an encoder read (1706.03762).

    A batch holds what the encoder's `Stack` reads, and for the decoder the same names after "decoder_": where both
    hold segment_ids, a token attends to what was read under its own number. With a cache the encoder's part is read by
    the first forward alone, and later batches need not hold it.
    """

    continues: ClassVar = DECODER + "input_ids"

    def __init__(self, embed: Tokens, core: Transformer, head: Vocabulary | Label | Joint, encoder: Stack) -> None:
        super().__init__(embed, core, head)
        self.encoder = encoder

    def read(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The encoder's states (B, S, D), and who of them is real: (B, 1, 1, S), None = all."""
        segments = batch.get("segment_ids")
        return self.encoder.states(batch), None if segments is None else (segments > 0)[:, None, None]

    def hidden(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """The decoder's states after the last layer (B, T, D)."""
        memory, mask = self.read(batch) if cache is None or cache.memory is None else cache.memory
        if cache is not None:
            cache.memory = memory, mask
        elif mask is not None and DECODER + "segment_ids" in batch:
            mask = across_mask(batch[DECODER + "segment_ids"], batch["segment_ids"])
        own = {name.removeprefix(DECODER): tensor for name, tensor in batch.items() if name.startswith(DECODER)}
        return self.states(own, cache, memory, mask)


class Towers(Network):
    """A stack for texts and one for images, whose pooled states are compared (CLIP, 2103.00020).

    A batch holds what both read, and segment_ids where texts are padded.
    """

    def __init__(self, embed: Tokens, core: Transformer, head: Pair, encoder: Stack) -> None:
        super().__init__(embed, core, head)
        self.encoder = encoder

    def forward(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """Scaled cosines of each image with each text (images, texts)."""
        assert isinstance(self.head, Pair)
        texts = self.head.text_vectors(self.hidden(batch), batch["input_ids"])
        return self.head.compared(texts, self.head.image_vectors(self.encoder.states(self._seen(batch))))

    def _seen(self, batch: Batch) -> Batch:
        """What the images' stack reads: text columns are none of its business."""
        return {self.encoder.embed.reads: batch[self.encoder.embed.reads]}


class Contest(Network):
    """A generator that fills in hidden tokens, beside a network that is to tell them from real ones (2003.10555).

    The generator, the stack `encoder` with `words` on it, reads tokens from the network's own table. A batch holds
    what the network reads; the network alone answers.
    """

    def __init__(self, embed: Tokens, core: Transformer, head: Label, encoder: Stack, words: Vocabulary) -> None:
        super().__init__(embed, core, head)
        self.encoder, self.words = encoder, words

    def proposed(self, batch: Batch) -> Tensor:
        """The generator's states after its last layer (B, T, G)."""
        return self.encoder.states(batch)
