"""The part of the OpenAI API that danlu speaks. What is not listed here is refused by name, never ignored."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

StopString = Annotated[str, Field(min_length=1, max_length=64)]
# The values that change nothing; clients send them by habit. Others are refused: danlu does not do them.
Zero = Annotated[float, Field(ge=0, le=0)]
No = Literal[False]


class Strict(BaseModel):
    """A request object: no unknown keys, no coercion, no NaN; null means "not given"."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: No = False


class Generated(Strict):
    """What both kinds of request share: the model and how to sample from it; None: as the model usually does."""

    model: str = Field(max_length=256)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int = Field(1, ge=1, le=4)
    stop: StopString | Annotated[list[StopString], Field(max_length=8)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    frequency_penalty: Zero = 0
    presence_penalty: Zero = 0
    user: str = Field("", max_length=256)

    @property
    def length(self) -> int | None:
        """The most tokens to generate; None when the request leaves it open."""
        return self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class CompletionRequest(Generated):
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=16)]
    echo: No = False
    best_of: Literal[1] = 1

    @property
    def prompts(self) -> Sequence[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class TextPart(Strict):
    type: Literal["text"]
    text: str


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str = Field("", max_length=256)

    @property
    def plain(self) -> dict[str, str]:
        """The message as the chat template takes it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ResponseFormat(Strict):
    type: Literal["text"]


class ChatRequest(Generated):
    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    response_format: ResponseFormat = ResponseFormat(type="text")
    logprobs: No = False

    @property
    def length(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


Record = dict[str, str | float | int | bool | None]  # a row of a table, by its columns
Records = Annotated[Record, Field(min_length=1)] | Annotated[list[Record], Field(min_length=1, max_length=256)]
Candidates = Annotated[list[str], Field(min_length=2, max_length=64)]
Candidates = Candidates | Annotated[list[Candidates], Field(min_length=1, max_length=256)]  # type: ignore[assignment,misc]
Number = Annotated[int, Field(ge=0, le=2**53)]  # of a wish; what it may be, the task says
Amount = Annotated[float, Field(ge=0, le=1000)]
Name = Annotated[str, Field(max_length=256)] | int  # of one class, which may be a number
Texts = str | Annotated[list[str], Field(min_length=1, max_length=256)]


class PredictRequest(Strict):
    """Rows to judge: a text or a row of a table, or a list of them, for each of the inputs of a task."""

    model: str | None = Field(None, max_length=256)

    @model_validator(mode="after")
    def _as_many(self) -> "PredictRequest":
        if len({len(texts) for texts in self._columns().values()}) > 1:
            raise ValueError("all inputs must be of one length")
        return self

    def _columns(self) -> dict[str, list[Any]]:
        given = {name: getattr(self, name) for name in type(self).model_fields if name not in ("model", "target")}
        whole = {name for name, each in given.items() if name == "choices" and isinstance(each[0], str)}
        given = {name: [each] if name in whole else each for name, each in given.items()}
        return {name: each if isinstance(each, list) else [each] for name, each in given.items() if each is not None}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as the task reads them."""
        columns = self._columns()
        if not columns:  # all may be left out
            return [{}]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def predict_request(asks: Mapping[str, bool]) -> type[PredictRequest]:
    """The request for a task that reads these texts (or rows, or numbers, by name); False where one may be left out."""
    named = {"record": Records, "choices": Candidates}
    named |= {"count": Number, "seed": Number, "steps": Number, "guidance": Amount, "label": Name}
    kinds: dict[str, Any] = {name: named.get(name, Texts) for name in asks}
    fields: dict[str, Any] = {
        name: (kinds[name], ...) if must else (kinds[name] | None, None) for name, must in asks.items()
    }
    return create_model("PredictRequest", __base__=PredictRequest, **fields)


def explain_request(asks: Mapping[str, bool]) -> type[PredictRequest]:
    """The request for why a row is answered so, or for what speaks for another answer, `target`."""
    return create_model("ExplainRequest", __base__=(OneRow, predict_request(asks)))


class OneRow(PredictRequest):
    """Only one row may be asked about."""

    target: str = Field("", max_length=256)

    @model_validator(mode="after")
    def _one(self) -> "OneRow":
        if len(self.rows) != 1:
            raise ValueError("one row at a time can be explained")
        return self


class Predictions(BaseModel):
    """What the model says of each text, in their order."""

    model: str
    predictions: list[dict[str, Any]]


class EmbeddingsRequest(Strict):
    """Texts to embed, as OpenAI's API has it."""

    model: str = Field(max_length=256)
    input: str | Annotated[list[str], Field(min_length=1, max_length=256)]
    encoding_format: Literal["float", "base64"] = "float"
    user: str = Field("", max_length=256)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as the task reads them."""
        return [{"text": each} for each in ([self.input] if isinstance(self.input, str) else self.input)]


class Embedding(BaseModel):
    """The vector of one text; in base64 it is float32, little-endian."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Embeddings(BaseModel):
    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: dict[str, int]


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Choice(BaseModel):
    """One answer or one piece of it: `text` for completions, `message` or `delta` for chats."""

    index: int
    text: str | None = None
    message: dict[str, str] | None = None
    delta: dict[str, str] | None = None
    finish_reason: str | None = None


class Answer(BaseModel):
    """A whole answer, or one streamed chunk of it."""

    id: str
    object: Literal["text_completion", "chat.completion", "chat.completion.chunk"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None

    def wire(self) -> dict[str, Any]:
        """The answer as sent: fields of the other kind left out, `finish_reason` always there."""
        choices = [{"finish_reason": None, **choice.model_dump(exclude_none=True)} for choice in self.choices]
        return {**self.model_dump(exclude_none=True), "choices": choices}


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["danlu"] = "danlu"
    max_model_len: int


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
