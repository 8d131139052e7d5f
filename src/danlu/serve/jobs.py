"""A request of the API as work for the engine: the prompt as tokens, and how to sample."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from danlu.modalities.chat import encode_chat
from danlu.nn.generate import WAYS, Sampling
from danlu.serve.generation import Job, Served
from danlu.serve.refusal import Refusal
from danlu.serve.schema import ChatRequest, CompletionRequest, Generated


@dataclass(frozen=True)
class Work:
    """The jobs of one request, one per choice, and the tokens of its prompts (each counted once)."""

    jobs: Sequence[Job]
    prompt_tokens: int


def of_completion(served: Served, wish: CompletionRequest) -> Work:
    """Each prompt is continued as the beginning of a document, `n` times."""
    return _work(served, wish, [continuation(served, prompt) for prompt in wish.prompts], "prompt")


def of_chat(served: Served, wish: ChatRequest) -> Work:
    """The messages through the model's chat template, answered `n` times."""
    if not served.chat:
        raise Refusal("not_a_chat_model", param="model")
    ids, _ = encode_chat(served.processor, [message.plain for message in wish.messages], reply=True)
    return _work(served, wish, [ids], "messages")


def continuation(served: Served, text: str) -> list[int]:
    """The tokens of a text that is to be continued: a document that has begun and not ended."""
    return [served.processor.end_id, *served.processor.encode(text)]


def _work(served: Served, wish: Generated, prompts: Sequence[Sequence[int]], param: str) -> Work:
    for prompt in prompts:
        if len(prompt) >= served.context:
            raise Refusal("prompt_too_long", param=param, tokens=len(prompt), context=served.context)
    if wish.length is not None and wish.length > served.context:
        raise Refusal("too_many_tokens", param="max_tokens", tokens=wish.length, context=served.context)
    seed = secrets.randbits(62) if wish.seed is None else wish.seed % 2**62
    jobs = [
        Job(prompt, _sampling(served.usual, wish, seed + choice, served.context - len(prompt)))
        for prompt in prompts
        for choice in range(wish.n)
    ]
    return Work(jobs, sum(map(len, prompts)))


def _sampling(usual: Sampling, wish: Generated, seed: int, room: int) -> Sampling:
    """An answer also ends where the context ends; `finish_reason` is then "length"."""
    wished = {name: getattr(wish, name) for name in WAYS if getattr(wish, name) is not None}
    return replace(
        usual,
        **wished,
        seed=seed,
        max_tokens=min(wish.length or room, room),
        stop=wish.stops,
    )
