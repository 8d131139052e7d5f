"""A tiny random model, and what it must say."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from danlu.modalities.text import Text
from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn.generate import Sampling
from danlu.nn.network import Network

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
    judges: bool = False
    usual: Sampling = field(default_factory=Sampling)

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The oracle: the most likely tokens by whole forward passes, no cache, no batch; control tokens only end."""
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


def fitted() -> Text:
    """A small vocabulary in which most words take several tokens."""
    return Text.fit(CORPUS, type="bpe", vocab_size=320)


def tiny(*, chat: bool = True) -> Tiny:
    """Random weights in float64, spread enough that the text varies."""
    text = fitted()
    network = build(qwen3.preset(text.vocab_size, CONTEXT, 1), torch.Generator().manual_seed(1)).double().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return Tiny(network, text, chat=chat)
