"""The vocabulary and the form of the network."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from danlu import catalogue
from danlu.config.values import Auto, PositiveInt, Section
from danlu.messages import text

_BYTES_AND_CONTROL = 256 + 3  # every byte is a token; so are the end of a text, the start and the end of a turn


class Tokenizer(Section):
    type: Literal["auto", "bpe", "wordpiece", "char"] = Field(
        "auto", description="how text is cut into tokens; auto: bpe, and wordpiece for bert and electra"
    )
    vocab_size: Annotated[int, Field(ge=64, le=1_000_000, strict=True)] | Auto = Field(
        "auto", description="tokens in the vocabulary"
    )

    @model_validator(mode="after")
    def _bytes_fit(self) -> "Tokenizer":
        if self.type != "wordpiece" and self.vocab_size != "auto" and self.vocab_size < _BYTES_AND_CONTROL:
            raise ValueError(text("recipe.vocabulary", type=self.type, least=_BYTES_AND_CONTROL))
        return self


PICTURED = ("picture", "masked", "boxed")  # shapes of rows that are pictures
WORDLESS = ("record", *PICTURED)  # those that have no tokens


Named = Annotated[str, BeforeValidator(lambda given: str(given) if type(given) is int else given)]  # 18 as "18"
if TYPE_CHECKING:
    Form = str
else:
    Form = Literal[("auto", *catalogue.forms())]  # what the families' files say


DIALS = ("width", "heads", "kv_heads", "hidden", "stages", "patch", "queries")  # sizes that forms may have


class ModelSection(Section):
    arch: Form = Field("auto", description="form of the network: gpt is Qwen3's; auto: what suits the task")
    size: Named | None = Field(
        None,
        description="a named size for depth and width: tiny of vit, 20 of resnet, small of cnn and mlp, ...",
    )
    base: str | None = Field(None, description="a model folder to start from instead of pretraining")
    depth: Annotated[int, Field(ge=1, le=200, strict=True)] | Auto = Field(
        "auto", description="the one dial: layers; width, heads and rates follow"
    )
    context: Annotated[int, Field(ge=16, le=1_000_000, strict=True)] = Field(
        256, description="tokens the model sees at once"
    )
    width: PositiveInt | None = Field(None, description="hidden width; default 64 per layer")
    heads: PositiveInt | None = Field(None, description="attention heads; default one per 64 of width")
    kv_heads: PositiveInt | None = Field(
        None, description="key and value heads (grouped-query attention); default = heads"
    )
    stages: PositiveInt | None = Field(
        None, description="stages of cnn and resnet, each half as large; default: the picture's size decides"
    )
    patch: PositiveInt | None = Field(
        None, description="pixels on each side of a patch of vit; default: the picture's size decides"
    )
    queries: PositiveInt | None = Field(None, description="boxes that detr can say of a picture; default 64")
    hidden: PositiveInt | None = Field(None, description="width inside the MLP")
    tied: Annotated[bool, Field(strict=True)] | Auto = Field(
        "auto", description="output weights are the embedding's; auto: yes, but in t5, whose version 1.1 has its own"
    )
