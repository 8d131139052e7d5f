"""What a recipe can say: one class per section, one line of documentation per key.

This is the only statement of the keys: strict reading (recipe.py), the starter recipe (`danlu init`),
and the reference pages are derived from it. Values that are measured later stay "auto" here, as written.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from danlu import catalogue
from danlu.messages import text
from danlu.quantity import count, seconds


def _checked(parse: Any) -> AfterValidator:
    def check(value: Any) -> Any:
        parse(value)
        return value

    return AfterValidator(check)


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):  # which would pass as 0 or 1
        raise ValueError(text("recipe.expected.count"))
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Duration = Annotated[str, _checked(seconds)]
Count = Annotated[int | str, BeforeValidator(_no_truth), _checked(count)]
Auto = Literal["auto"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)]
PositiveInt = Annotated[int, Field(ge=1, strict=True)]
Paths = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]


class Section(BaseModel):
    """A table of the recipe: unknown keys are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Split(Section):
    valid: Fraction = Field(0.05, description="share of the rows held out to watch training")
    test: Fraction = Field(0.05, description="share of the rows held out for the final figures")

    @model_validator(mode="after")
    def _some_left(self) -> "Split":
        if self.valid + self.test >= 1:
            raise ValueError(text("recipe.split_sum"))
        return self


class Dedup(Section):
    threshold: Annotated[float, Field(ge=0.3, le=1.0, strict=True)] = Field(
        0.8, description="Jaccard similarity that counts as a near copy"
    )
    ngram: Literal["auto", "word", "char"] = Field(
        "auto", description="shingles of words, or of characters where words are not spaced"
    )
    size: Annotated[int, Field(ge=0, le=20, strict=True)] = Field(
        0, description="words or characters in a shingle; 0 chooses"
    )


class Data(Section):
    path: Paths = Field(description="file, folder, glob, or a list of them")
    valid: Paths | None = Field(None, description="files held out to watch training, in the place of a share")
    test: Paths | None = Field(None, description="files held out for the final figures, in the place of a share")
    format: Literal["auto", "text", "code", "csv", "tsv", "jsonl", "json", "parquet"] = Field(
        "auto", description="how files are read"
    )
    record: Literal["auto", "file", "section", "line"] = Field("auto", description="what one row of plain text is")
    section: Annotated[int, Field(ge=200, le=1_000_000, strict=True)] = Field(
        4000, description="characters of a section"
    )
    shape: Literal["auto", "text", "pair", "chat", "labelled"] = Field(
        "auto", description="what a row holds; auto: what the task reads, else what is found"
    )
    header: bool = Field(True, strict=True, description="whether the first line of a table names its columns")
    pattern: str | None = Field(
        None, description="a regular expression whose named groups are the columns of a line of plain text"
    )
    columns: dict[str, str] = Field({}, description='ours = "yours"; a column without a name is "1", "2", ...')
    encoding: str = Field("auto", description="auto, utf-8, utf-16, gb18030, ...")
    bad_records: Literal["fail", "skip"] = Field("fail", description="what a row that cannot be read does")
    exclude: list[str] = Field([], description="glob patterns of files to leave out")
    limit_mb: Positive | None = Field(None, description="at most this many MB, files in order of their content's hash")
    clean: list[str] | Auto = Field("auto", description="cleaning steps, in order; auto chooses by the kind of data")
    dedup: Dedup = Field(Dedup(), description="how near copies are found")
    split: Split = Field(Split(), description="held-out shares, drawn after duplicates are gone")

    @model_validator(mode="after")
    def _named_groups(self) -> "Data":
        if self.pattern is None:
            return self
        try:
            if re.compile(self.pattern).groupindex:
                return self
            reason = text("recipe.no_group")
        except re.error as error:
            reason = str(error)
        raise ValueError(text("recipe.pattern", reason=reason))

    def held_out(self) -> dict[str, list[str]]:
        """The splits that files are named for."""
        return {name: paths for name in ("valid", "test") if (paths := getattr(self, name))}

    def paths(self) -> tuple[str, ...]:
        """All raw files that are named."""
        return (*self.path, *itertools.chain.from_iterable(self.held_out().values()))


_BYTES_AND_CONTROL = 256 + 3  # every byte is a token; so are the end of a text, the start and the end of a turn


class Tokenizer(Section):
    type: Literal["auto", "bpe", "wordpiece", "char"] = Field(
        "auto", description="how text is cut into tokens; auto: bpe, and wordpiece for bert"
    )
    vocab_size: Annotated[int, Field(ge=64, le=1_000_000, strict=True)] | Auto = Field(
        "auto", description="tokens in the vocabulary"
    )

    @model_validator(mode="after")
    def _bytes_fit(self) -> "Tokenizer":
        if self.type != "wordpiece" and self.vocab_size != "auto" and self.vocab_size < _BYTES_AND_CONTROL:
            raise ValueError(text("recipe.vocabulary", type=self.type, least=_BYTES_AND_CONTROL))
        return self


class ModelSection(Section):
    arch: Literal["auto", "gpt", "qwen3", "gpt2", "bert"] = Field(
        "auto", description="form of the network: gpt is Qwen3's, bert reads both ways; auto: what suits the task"
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
    hidden: PositiveInt | None = Field(None, description="width inside the MLP")
    tied: bool = Field(True, strict=True, description="output weights are the embedding's")


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
        "auto", description="auto: muon to pretrain, adamw to tune"
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
    clip: NonNegative = Field(1.0, description="largest norm of the gradient; 0 switches it off")
    dropout: Fraction | Auto = Field(
        "auto", description="auto: none where rows are seen at most twice, up to 0.2 where they are seen often"
    )
    batch_tokens: Annotated[int, Field(ge=16, strict=True)] | Auto = Field(
        "auto", description="tokens per optimizer step"
    )
    accumulate: PositiveInt | Auto = Field(
        "auto", description="micro-batches a step is cut into; the result is the same"
    )
    budget: Duration | None = Field(None, description="how long this training may take, evaluation and saving included")
    tokens: Count | None = Field(None, description="or: how many tokens to train on")
    epochs: Positive | None = Field(None, description="or: how many times over the data")
    steps: PositiveInt | None = Field(None, description="or: how many optimizer steps")
    deadline: Duration | None = Field(None, description="hard stop by the clock: save and leave, resumable")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where this machine is faster with it"
    )
    attention: Literal["auto", "sdpa", "written"] = Field(
        "auto", description="how attention is computed, not what; auto measures"
    )
    recompute: Literal["auto"] | bool = Field(
        "auto", description="compute activations again in backward instead of keeping them; auto: where memory is short"
    )
    evaluate_every: PositiveInt | Auto = Field("auto", description="steps between looks at the validation rows")
    save_every: PositiveInt | Auto = Field("auto", description="steps between checkpoints")
    stop_early: PositiveInt | None = Field(None, description="stop after this many evaluations without a better loss")
    select: Literal["best", "last"] = Field("best", description="which weights become the model")
    sample: str | None = Field(None, description="a text continued at every evaluation")

    def idle(self) -> Iterator[tuple[str, str]]:
        """Keys that the optimizer or the schedule would not read, with the key and value that makes them idle."""
        for name, (decider, readers) in _READ_BY.items():
            chosen = getattr(self, decider)
            if getattr(self, name) != Train.model_fields[name].default and chosen not in ("auto", *readers):
                yield name, f'{decider} = "{chosen}"'


_READ_BY = {
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


_READING: dict[str, Any] = {
    name: (field.annotation, field) for name, field in Data.model_fields.items() if name not in ("path", "limit_mb")
}
_Tuning: Any = create_model("_Tuning", __base__=Pretrain, **_READING)


class Finetune(_Tuning):
    data: Paths | None = Field(None, description="rows to tune on: prompt/completion or chats")
    derive: str | None = Field(None, description="or: rows made from the prepared ones (python_functions, same_rows)")
    task: str = Field("instruction", description="what is learned in this stage")
    max_answer: PositiveInt | None = Field(
        None, description="tokens; rows with a longer answer are left out, so that the model learns to end by then"
    )
    tune: Annotated[str, Field(pattern=r"^(full|head|last-[1-9]\d*|lora)$")] = Field(
        "full", description="full, head, last-N or lora"
    )
    adapt: list[dict[str, Any]] | None = Field(None, description="the long form of tune: a list of adapters")

    @model_validator(mode="after")
    def _one_source(self) -> "Finetune":
        if self.data and self.derive:
            raise ValueError(text("recipe.one_source"))
        given = [name for name in _READING if getattr(self, name) != Finetune.model_fields[name].default]
        if self.derive and given:
            raise ValueError(text("recipe.derived", keys=", ".join(given), derive=self.derive))
        if self.adapt is not None and "tune" in self.model_fields_set:
            raise ValueError(text("recipe.one_tuning"))
        return self


class Evaluate(Section):
    ngram: Annotated[int, Field(ge=0, le=8, strict=True)] = Field(
        5, description="order of the n-gram model set beside ours; 0 leaves it out"
    )
    samples: Annotated[int, Field(ge=0, le=50, strict=True)] = Field(
        3, description="continuations of held-out rows shown in the report"
    )


class Compress(Section):
    kind: Literal["int8"] = Field("int8", description="8-bit weights, one scale per output channel")


class Serve(Section):
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535, strict=True)] = Field(8000, description="port; 0 takes a free one")
    slots: Annotated[int, Field(ge=1, le=256, strict=True)] = Field(
        8, description="requests generated at the same time"
    )
    queue: Annotated[int, Field(ge=1, le=10_000, strict=True)] = Field(64, description="requests that may wait")
    api_key: str | None = Field(None, description="key that clients must send; needed beyond this machine")


class System(Section):
    runs: str = Field("runs", description="folder of all results, beside the recipe")
    threads: PositiveInt | Auto = Field("auto", description="processor threads")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = Field(
        "auto", description="where networks are computed: auto, cpu, cuda, cuda:1, mps; auto is a CUDA GPU, else cpu"
    )
    compile: Literal["auto"] | bool = Field(
        "auto", description="blocks as compiled programs (torch.compile); auto: where it pays back within the training"
    )
    devices: PositiveInt = Field(1, description="processes that train together, each on its share of every batch")
    parallel: Literal["auto", "ddp", "fsdp", "tensor"] = Field(
        "auto", description="what each device holds: ddp all weights, fsdp its rows, tensor its heads; auto: what fits"
    )
    partitions: PositiveInt | Auto = Field(
        "auto", description="pieces the data are processed in; the result is the same"
    )
    data: str = Field("local", description='data engine: local, or a cluster as "ray://host:port"')


class Recipe(Section):
    """A whole life: data, vocabulary, model, training, evaluation, compression, service."""

    task: str = Field(description="what is learned (danlu list tasks)")
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = Field(1, description="the one source of randomness")
    data: Data
    tokenizer: Tokenizer = Tokenizer()
    model: ModelSection = ModelSection()
    train: Train = Train()
    pretrain: Pretrain = Pretrain()
    finetune: Finetune | None = None
    evaluate: Evaluate = Evaluate()
    compress: Compress | None = None
    serve: Serve = Serve()
    system: System = System()

    @model_validator(mode="after")
    def _base_decides(self) -> "Recipe":
        """A base model brings its own form and vocabulary: keys that would say otherwise are refused, not ignored."""
        if self.model.base:
            given = [f"model.{name}" for name in sorted(self.model.model_fields_set - {"base", "context"})]
            given += [f"tokenizer.{name}" for name in sorted(self.tokenizer.model_fields_set)]
            if given:
                raise ValueError(text("recipe.base_decides", keys=", ".join(given)))
        return self

    @property
    def backbone(self) -> ModelSection:
        """The model with the form that it says, else the one that suits the task."""
        suited = catalogue.stated(self.task, "arch") or "gpt"
        return self.model.model_copy(update={"arch": suited}) if self.model.arch == "auto" else self.model

    def reading(self) -> Data:
        """How the rows of [finetune] data are read."""
        tune: Any = self.finetune
        return Data(path=tune.data, **{name: getattr(tune, name) for name in _READING})

    @model_validator(mode="after")
    def _has_effect(self) -> "Recipe":
        """A key that nothing would read is refused, not ignored."""
        stages: list[Any] = [self.trained, "finetune"] if self.finetune else [self.trained]
        idle = [dict(self.training(stage).idle()) for stage in stages]
        for section, readers in [("train", idle), *((stage, idle[i : i + 1]) for i, stage in enumerate(stages))]:
            for name in getattr(self, section).model_fields_set if getattr(self, section) else ():
                if all(name in each for each in readers):
                    raise ValueError(text("recipe.no_effect", key=f"{section}.{name}", why=readers[0][name]))
            speaks = any(catalogue.stated(each.task, "arch") != "bert" for each in (self, self.finetune) if each)
            if getattr(getattr(self, section), "sample", None) and not speaks:
                raise ValueError(text("recipe.no_effect", key=f"{section}.sample", why=f'task = "{self.task}"'))
            if getattr(getattr(self, section), "stop_early", None) and not self._watched(section):
                raise ValueError(text("recipe.nothing_held_out", key=f"{section}.stop_early"))
        return self

    def _watched(self, section: str) -> bool:
        """Whether a training of this section has validation rows."""
        tune: Any = self.finetune
        return bool((tune if section == "finetune" and tune and tune.data else self.data).split.valid)

    @property
    def trained(self) -> Literal["pretrain", "finetune"]:
        """The training that stands first: a base that learns to answer is tuned."""
        return "finetune" if self.model.base and self.task == "instruction" else "pretrain"

    def training(self, stage: Literal["pretrain", "finetune"]) -> Train:
        """The complete settings of one training: defaults, the stage's habits, [train], then [stage]."""
        values = dict(_HABITS[stage])
        for section in (self.train, getattr(self, stage)):
            written = section.model_fields_set if section is not None else ()
            given = {name: getattr(section, name) for name in written if name in Train.model_fields}
            given = {name: value for name, value in given.items() if value is not None}
            if any(name in given for name in LENGTHS):
                values = {name: value for name, value in values.items() if name not in LENGTHS}
            values |= given
        return Train(**values)


_HABITS: dict[str, dict[str, Any]] = {
    "pretrain": {"budget": "5min"},
    "finetune": {"epochs": 3.0, "warmup": 0.05, "schedule": "linear"},
}
