"""How a network is trained: [train], and [pretrain] and [finetune] beside it."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, ValidationInfo, create_model, field_validator, model_validator

from danlu.config import options
from danlu.config.data import Data
from danlu.config.values import Auto, Count, Duration, Fraction, NonNegative, Paths, Positive, PositiveInt, Section
from danlu.messages import text

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)]
Begins = Literal["random", "trained", "pretrained"]  # weights: none yet, of the same recipe, of another place
LENGTHS = ("budget", "tokens", "epochs", "steps")


class _Training(Section):
    """What holds for every table that says how to train."""

    @model_validator(mode="after")
    def _one_length(self) -> "_Training":
        given = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(text("recipe.one_length", valid=", ".join(LENGTHS), found=", ".join(given)))
        return self


class Train(_Training):
    optimizer: Literal["auto", "sgd", "adam", "adamw", "rmsprop", "muon"] = Field(
        "auto", description="auto: muon to pretrain, adamw to tune, and where few rows pass wide layers"
    )
    lr: Positive | Auto = Field("auto", description="peak learning rate")
    schedule: Literal["wsd", "cosine", "linear", "exponential", "constant"] = Field(
        "wsd", description="shape of the learning rate"
    )
    warmup: Fraction = Field(0.03, description="share of the steps in which the rate rises")
    decay: Fraction = Field(0.5, description="share of the steps in which wsd falls")
    final_lr: Fraction = Field(0.0, description="rate at the end, as a share of the peak")
    momentum: Fraction = Field(0.9, description="of sgd; muon uses 0.95")
    beta1: Fraction = Field(0.9, description="of adam and adamw")
    beta2: Fraction = Field(0.95, description="of adam and adamw")
    weight_decay: NonNegative | Auto = Field("auto", description="decoupled decay of the matrices")
    l1: NonNegative = Field(0.0, description="strength of the L1 penalty")
    l2: NonNegative = Field(0.0, description="strength of the L2 penalty")
    layer_decay: Share = Field(1.0, description="rate of each layer as a share of that of the layer above it")
    rates: dict[str, Positive] = Field(
        {}, description="what the rate is multiplied by for parameters with these words in their names, as head = 10.0"
    )
    unfreeze: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] = Field(
        0.0, description="share of the steps in which the layers begin to learn, one by one, the last first"
    )
    clip: NonNegative = Field(1.0, description="largest norm of the gradient; 0 switches it off")
    dropout: Fraction | Auto = Field(
        "auto", description="auto: none where rows are seen at most twice, up to 0.2 where they are seen often"
    )
    batch_tokens: PositiveInt | Auto = Field(
        "auto", description="tokens (pictures, where rows are such) per optimizer step"
    )
    accumulate: PositiveInt | Auto = Field(
        "auto", description="micro-batches a step is cut into; the result is the same"
    )
    budget: Duration | None = Field(None, description="how long this training may take, evaluation and saving included")
    tokens: Count | None = Field(None, description="or: how many tokens to train on")
    epochs: Positive | None = Field(None, description="or: how many times over the data")
    steps: PositiveInt | None = Field(None, description="or: how many optimizer steps")
    deadline: Duration | None = Field(None, description="hard stop by the clock: save and leave, resumable")
    precision: Literal["auto", "fp32", "bf16", "fp8"] = Field(
        "auto",
        description="auto: bf16 where this machine is faster with it; fp8 only on GPUs that multiply in it",
    )
    attention: Literal["auto", "sdpa", "written", "flex"] = Field(
        "auto", description="how attention is computed, not what; auto measures; flex only on GPUs"
    )
    recompute: Literal["auto"] | bool = Field(
        "auto", description="compute activations again in backward instead of keeping them; auto: where memory is short"
    )
    evaluate_every: PositiveInt | Auto = Field("auto", description="steps between looks at the validation rows")
    save_every: PositiveInt | Auto = Field("auto", description="steps between checkpoints")
    stop_early: PositiveInt | None = Field(None, description="stop after this many evaluations without a better loss")
    select: Literal["best", "last"] = Field("best", description="which weights: best by the task's metric or the loss")
    average: Fraction = Field(
        0.0,
        description="judge and save a mean of the weights, of which each step keeps this share, as 0.999; 0: none",
    )
    sample: str | None = Field(None, description="a text continued at every evaluation")

    @property
    def counted(self) -> bool:
        """Whether the recipe says how many steps, tokens or epochs: their pace changes nothing but the forecast."""
        return {self.steps, self.tokens, self.epochs} != {None}

    def idle(self) -> Iterator[tuple[str, str]]:
        """Keys that the optimizer or the schedule would not read, with the key and value that makes them idle."""
        for name, (decider, readers) in READ_BY.items():
            chosen = getattr(self, decider)
            if getattr(self, name) != Train.model_fields[name].default and chosen not in ("auto", *readers):
                yield name, f'{decider} = "{chosen}"'


READ_BY = {
    "momentum": ("optimizer", ("sgd",)),
    "beta1": ("optimizer", ("adam", "adamw", "muon")),
    "beta2": ("optimizer", ("adam", "adamw", "muon")),
    "weight_decay": ("optimizer", ("sgd", "rmsprop", "adamw", "muon")),
    "decay": ("schedule", ("wsd",)),
    "final_lr": ("schedule", ("wsd", "cosine", "linear", "exponential")),
}

_OPTIONAL: dict[str, Any] = {
    name: (hint | None, Field(None, description=Train.model_fields[name].description))
    for name, hint in get_type_hints(Train, include_extras=True).items()
    if name in Train.model_fields
}
Pretrain: Any = create_model("Pretrain", __base__=_Training, **_OPTIONAL)


READING: dict[str, Any] = {
    name: (field.annotation, field) for name, field in Data.model_fields.items() if name not in ("path", "limit_mb")
}
_Tuning: Any = create_model("_Tuning", __base__=Pretrain, **READING)


class Finetune(_Tuning):
    data: Paths | None = Field(None, description="rows to tune on: prompt/completion or chats")
    derive: str | None = Field(None, description="or: rows made from the prepared ones (python_functions, same_rows)")
    task: str = Field("instruction", description="what is learned in this stage")
    options: dict[str, Any] = Field({}, validate_default=True, description="settings of that task's own, by name")
    max_answer: PositiveInt | None = Field(
        None, description="tokens; rows with a longer answer are left out, so that the model learns to end by then"
    )
    tune: Annotated[str, Field(pattern=r"^(full|head|last-[1-9]\d*|lora|dora|qlora|prefix|adapter|bitfit)$")] = Field(
        "full", description="full, head, last-N, lora, dora, qlora, prefix, adapter or bitfit"
    )
    keep_adapters: bool = Field(
        False,
        strict=True,
        description="also write the adapters alone, as the library peft reads them, beside the model",
    )
    adapt: list[dict[str, Any]] | None = Field(None, description="the long form of tune: a list of adapters")

    @field_validator("options")
    @classmethod
    def _of_the_task(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return options.complete(info.data.get("task", ""), given)

    @property
    def rows(self) -> bool:
        """Whether it has rows of its own."""
        return bool(self.data or self.derive)

    @model_validator(mode="after")
    def _one_source(self) -> "Finetune":
        if self.data and self.derive:
            raise ValueError(text("recipe.one_source"))
        given = [name for name in READING if getattr(self, name) != Finetune.model_fields[name].default]
        if self.derive and given:
            raise ValueError(text("recipe.derived", keys=", ".join(given), derive=self.derive))
        if self.adapt is not None and "tune" in self.model_fields_set:
            raise ValueError(text("recipe.one_tuning"))
        return self
