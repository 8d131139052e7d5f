"""What was generated, in the two shapes of the OpenAI API, a text completion and a chat; and vectors in its third."""

import base64
import secrets
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from danlu.serve.schema import Answer, Choice, Embedding, Embeddings, Usage


@dataclass(frozen=True)
class Said:
    """One choice when it is complete."""

    text: str
    finish: str | None


@dataclass(frozen=True)
class Shape(ABC):
    """One answer under one id: whole, or as chunks."""

    model: str
    prefix: ClassVar[str]
    whole_object: ClassVar[Any]
    chunk_object: ClassVar[Any]
    token: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @abstractmethod
    def said(self, index: int, said: Said) -> Choice:
        """A complete choice."""

    @abstractmethod
    def piece(self, index: int, text: str, finish: str | None) -> Choice:
        """A streamed piece of a choice."""

    def opening(self, index: int) -> Choice | None:
        """What a stream says before its first piece, if anything."""
        return None

    def whole(self, choices: Sequence[Said], usage: Usage) -> dict[str, Any]:
        return self._answer(self.whole_object, [self.said(*each) for each in enumerate(choices)], usage)

    def chunk(self, choice: Choice | None, usage: Usage | None = None) -> dict[str, Any]:
        return self._answer(self.chunk_object, [] if choice is None else [choice], usage)

    def _answer(self, kind: Any, choices: list[Choice], usage: Usage | None) -> dict[str, Any]:
        answer_id = f"{self.prefix}-{self.token}"
        return Answer(
            id=answer_id, object=kind, created=self.created, model=self.model, choices=choices, usage=usage
        ).wire()


class TextShape(Shape):
    """/v1/completions."""

    prefix = "cmpl"
    whole_object = chunk_object = "text_completion"

    def said(self, index: int, said: Said) -> Choice:
        return Choice(index=index, text=said.text, finish_reason=said.finish)

    def piece(self, index: int, text: str, finish: str | None) -> Choice:
        return Choice(index=index, text=text, finish_reason=finish)


class ChatShape(Shape):
    """/v1/chat/completions."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def said(self, index: int, said: Said) -> Choice:
        return Choice(index=index, message={"role": "assistant", "content": said.text}, finish_reason=said.finish)

    def piece(self, index: int, text: str, finish: str | None) -> Choice:
        return Choice(index=index, delta={"content": text} if text else {}, finish_reason=finish)

    def opening(self, index: int) -> Choice | None:
        return Choice(index=index, delta={"role": "assistant", "content": ""})


def embeddings(model: str, found: Sequence[dict[str, Any]], form: str) -> Embeddings:
    """/v1/embeddings: what a judge of texts found, as numbers or ("base64") as their bytes."""
    vectors = [each["embedding"] for each in found]
    said = [_packed(each) if form == "base64" else each for each in vectors]
    tokens = sum(each["tokens"] for each in found)
    data = [Embedding(index=place, embedding=each) for place, each in enumerate(said)]
    return Embeddings(model=model, data=data, usage={"prompt_tokens": tokens, "total_tokens": tokens})


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
