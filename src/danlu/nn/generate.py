"""From logits to tokens: sampling, and the loop that feeds each token back through the cache.

Shapes: B rows · T time · V vocabulary
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from danlu.nn.cache import Cache
from danlu.nn.heads import Vocabulary
from danlu.nn.losses import token_losses
from danlu.nn.network import Batch, Network

__all__ = ["WAYS", "Cache", "Sampling", "generate", "sample", "score", "write"]

WAYS = ("temperature", "top_k", "top_p", "repetition_penalty")  # what a model has its usual values of


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop; `stop` strings are the text layer's to watch for."""

    temperature: float = 1.0  # 0 = the most likely token
    top_k: int = 0  # only the k most likely; 0 = all
    top_p: float = 1.0  # only the most likely that together reach p (1904.09751)
    repetition_penalty: float = 1.0  # makes tokens that occurred less likely (1909.05858)
    seed: int = 0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1 or self.repetition_penalty <= 0:
            raise ValueError(f"not a way to sample: {self}")


def sample(
    logits: Tensor,
    samplings: Sequence[Sampling],
    history: Sequence[Sequence[int]],
    generators: Sequence[torch.Generator],
    end_ids: Collection[int] = (),
) -> Tensor:
    """logits (B, V) -> ids (B,), each row by its own sampling, history and generator, whatever stands beside it.

    The k likeliest and the p likeliest are both prefixes of the sorted distribution; one number drawn per row and the
    inverse of its cumulative sum choose within the shorter one. The ends of earlier turns that stand in a history are
    no repetition: `end_ids` are never penalised.
    """
    logits = logits.float()
    if any(each.repetition_penalty != 1.0 for each in samplings):
        logits = _penalised(logits, samplings, [set(past).difference(end_ids) for past in history])
    if all(each.temperature == 0 for each in samplings):
        return logits.argmax(-1)
    vocab = logits.shape[1]
    heat = _column([each.temperature or 1.0 for each in samplings], logits)
    most = _column([1 if each.temperature == 0 else min(each.top_k or vocab, vocab) for each in samplings], logits)
    share = _column([each.top_p for each in samplings], logits)
    drawn = _column([float(torch.rand((), generator=generator)) for generator in generators], logits)

    logits = (logits - logits.amax(-1, keepdim=True)) / heat  # the highest is 0: no temperature overflows it
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.softmax(-1).cumsum(-1)
    most = most.long()
    mass = cumulative.gather(1, most - 1) * share
    kept = torch.minimum(torch.searchsorted(cumulative, mass) + 1, most)
    chosen = torch.searchsorted(cumulative, drawn * cumulative.gather(1, kept - 1), right=True)
    return ids.gather(1, torch.minimum(chosen, kept - 1)).squeeze(1)


def generate(
    network: Network,
    prompt_ids: Sequence[int],
    sampling: Sampling,
    end_ids: Collection[int],
    source: Batch | None = None,
) -> Iterator[int]:
    """The tokens that follow the prompt, one by one, until one of `end_ids` (which is not given) or max_tokens.

    `source`: a batch of one row for the encoder, where the network has one; the prompt is then the decoder's start.
    """
    length = len(prompt_ids) + sampling.max_tokens
    cache = Cache(network.core.config, 1, length, network.dtype, network.device)
    generator = torch.Generator().manual_seed(sampling.seed)
    tokens, unread = list(prompt_ids), list(prompt_ids)
    for _ in range(sampling.max_tokens):
        logits = _next_logits(network, cache, unread, source or {})
        token = int(sample(logits, [sampling], [tokens], [generator], end_ids))
        if token in end_ids:
            return
        yield token
        tokens.append(token)
        unread = [token]


@torch.inference_mode()
def write(network: Network, source: Batch, start: int, end: int, limit: int) -> list[list[int]]:
    """What an encoder-decoder writes of each row that it reads: the likeliest tokens up to `end`, at most `limit`."""
    rows = len(source["input_ids"])
    cache = Cache(network.core.config, rows, limit, network.dtype, network.device)
    unread = torch.full((rows, 1), start, device=network.device)
    written, done = [unread], torch.zeros(rows, dtype=torch.bool, device=network.device)
    while len(written) <= limit and not bool(done.all()):
        logits = network.head(network.hidden({**source, network.continues: unread}, cache)[:, -1])
        unread = logits.argmax(-1, keepdim=True)
        written.append(unread)
        done |= unread[:, 0] == end
    found = torch.cat(written[1:], 1).tolist()
    return [row[: row.index(end)] if end in row else row for row in found]


def score(network: Network, ids: Sequence[int]) -> Tensor:
    """(T - 1,) fp32: the log-probability of each token after those before it."""
    tokens = torch.tensor([ids], device=network.device)
    assert isinstance(network.head, Vocabulary)
    with torch.no_grad():
        head = network.head
        assert isinstance(head, Vocabulary)
        hidden = head.prepare(network.hidden({"input_ids": tokens[:, :-1]})[0])
        return -token_losses(hidden, head.weight, tokens[0, 1:], bias=head.bias)[0]


@torch.inference_mode()
def _next_logits(network: Network, cache: Cache, tokens: Sequence[int], source: Batch) -> Tensor:
    """Read `tokens` into the cache; logits (1, V) of what follows."""
    batch = {**source, network.continues: torch.tensor([tokens], device=network.device)}
    return network.head(network.hidden(batch, cache)[:, -1])


def _penalised(logits: Tensor, samplings: Sequence[Sampling], history: Sequence[Collection[int]]) -> Tensor:
    """A copy with the logits of tokens that occurred divided by the penalty where positive, else multiplied."""
    logits = logits.clone()
    for row, (sampling, past) in enumerate(zip(samplings, history, strict=True)):
        if sampling.repetition_penalty != 1.0 and past:
            ids = torch.tensor(sorted(past), device=logits.device)
            seen, penalty = logits[row, ids], sampling.repetition_penalty
            logits[row, ids] = torch.where(seen > 0, seen / penalty, seen * penalty)
    return logits


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """(B, 1), one value per row."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
