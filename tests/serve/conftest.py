"""A tiny random model, as it is served."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch

from danlu.config import Serve
from danlu.modalities.text import Text
from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.serve.engine import Engine
from danlu.serve.run import background

CORPUS = [
    "def add(a, b):\n    return a + b\n",
    "炼丹炉里炼金丹，一炉一炉又一炉。",
    "the quick brown fox jumps over the lazy dog",
] * 4
CONTEXT = 96


@dataclass
class Tiny:
    """What the engine serves."""

    network: Network
    processor: Text
    context: int = CONTEXT
    chat: bool = True

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The oracle: the most likely tokens by whole forward passes, no cache, no batch; no control token but an end."""
        text, tokens = self.processor, list(prompt)
        ends = {text.end_id, text.end_turn} if self.chat else {text.end_id}
        never = list(set(text.control.values()) - ends)
        while len(tokens) < len(prompt) + count:
            with torch.inference_mode():
                logits = self.network({"input_ids": torch.tensor([tokens])})[0, -1].clone()
                logits[never] = -torch.inf
            tokens.append(int(logits.argmax()))
            if tokens[-1] in ends:
                return tokens[len(prompt) : -1]
        return tokens[len(prompt) :]


def tiny(*, chat: bool = True) -> Tiny:
    """Random weights in float64, spread enough that the text varies."""
    text = Text.fit(CORPUS, type="bpe", vocab_size=320)
    network = build(qwen3.preset(text.vocab_size, CONTEXT, 1), torch.Generator().manual_seed(1)).double().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return Tiny(network, text, chat=chat)


@pytest.fixture(scope="session")
def served() -> Tiny:
    return tiny()


@pytest.fixture(scope="session")
def base() -> Tiny:
    """A model that never saw dialogs."""
    return tiny(chat=False)


@pytest.fixture
def engine(served: Tiny) -> Iterator[Engine]:
    with Engine(served, slots=3, waiting=500) as running:
        yield running


@pytest.fixture(scope="module")
def url(served: Tiny) -> Iterator[str]:
    """A real server on a free port of this machine."""
    with background(served, "tiny", Serve(port=0, slots=3)) as address:
        yield address
