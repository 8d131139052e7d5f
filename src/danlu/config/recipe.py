"""All of a recipe, and what its sections say together."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from danlu import catalogue
from danlu.config import options
from danlu.config.data import Data, Dedup
from danlu.config.model import DIALS, PICTURED, WORDLESS, ModelSection, Tokenizer
from danlu.config.training import LENGTHS, READING, Begins, Finetune, Pretrain, Train
from danlu.config.values import Auto, Positive, PositiveInt, Section
from danlu.messages import text


class Evaluate(Section):
    ngram: Annotated[int, Field(ge=0, le=8, strict=True)] | Auto = Field(
        "auto",
        description="longest n-grams of the simple model set beside; auto: 5, in a bag for classes 2; 0 leaves it out",
    )
    samples: Annotated[int, Field(ge=0, le=50, strict=True)] = Field(
        3, description="held-out rows that are shown in the report, continued or answered"
    )
    show: Annotated[str, Field(pattern=r"^worst-[1-9]\d?$")] = Field(
        "worst-20", description="which answers the report shows: worst-N, those that were most wrong"
    )
    judge: str | None = Field(
        None, description="folder of a model that classifies pictures, by which those that are made are judged"
    )

    @property
    def worst(self) -> int:
        """How many of what was wrong are shown."""
        return int(self.show.removeprefix("worst-"))


class Distill(Section):
    teacher: str = Field(description="folder of a model that knows the same classes, whose answers are learned too")
    way: Literal["hard", "soft"] = Field(
        "hard", description="what is learned of its answers: hard, the class that it says; soft, how likely each is"
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="share of the loss that is about its answers")
    temperature: Positive = Field(3.0, description="of soft answers: by what logits are divided, so that all weigh")


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
    options: dict[str, Any] = Field({}, validate_default=True, description="settings of the task's own, by name")
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = Field(1, description="the one source of randomness")
    data: Data
    tokenizer: Tokenizer = Tokenizer()
    model: ModelSection = ModelSection()
    train: Train = Train()
    pretrain: Pretrain = Pretrain()
    finetune: Finetune | None = None
    distill: Distill | None = None
    evaluate: Evaluate = Evaluate()
    compress: Compress | None = None
    serve: Serve = Serve()
    system: System = System()

    @field_validator("options")
    @classmethod
    def _of_the_task(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return options.complete(info.data.get("task", ""), given)

    @model_validator(mode="after")
    def _base_decides(self) -> "Recipe":
        """A base model brings its own form and vocabulary: keys that would say otherwise are refused, not ignored."""
        if self.model.base:
            given = [f"model.{name}" for name in sorted(self.model.model_fields_set - {"base", "context"})]
            given += [f"tokenizer.{name}" for name in sorted(self.tokenizer.model_fields_set)]
            if given:
                raise ValueError(text("recipe.base_decides", keys=", ".join(given)))
        return self

    @model_validator(mode="after")
    def _rows_once(self) -> "Recipe":
        """Where a base is tuned on the rows of [data], [finetune] says how alone."""
        tune: Any = self.finetune
        if tune and self.trained == "finetune":
            own = ("data", "derive", "task", "options", *READING)
            if given := [name for name in own if name in tune.model_fields_set]:
                raise ValueError(text("recipe.rows_once", keys=", ".join(f"finetune.{name}" for name in given)))
        return self

    @model_validator(mode="after")
    def _is_taught(self) -> "Recipe":
        """Some tasks can be learned from a teacher; what it says hard has no temperature."""
        if self.distill and not catalogue.stated(self.task, "teachable"):
            raise ValueError(text("recipe.no_effect", key="distill", why=f'task = "{self.task}"'))
        if self.distill and self.distill.way == "hard" and "temperature" in self.distill.model_fields_set:
            raise ValueError(text("recipe.no_effect", key="distill.temperature", why='distill.way = "hard"'))
        return self

    @property
    def backbone(self) -> ModelSection:
        """The model with the form that it says, else the one that suits the task, and a named size as what it says."""
        arch = (catalogue.stated(self.task, "arch") or "gpt") if self.model.arch == "auto" else self.model.arch
        named = _sizes(arch).get(self.model.size or "", {})
        return self.model.model_copy(update={"arch": arch, "size": None, **named})

    @model_validator(mode="after")
    def _size_is_known(self) -> "Recipe":
        """A named size is one of its form's, and nothing else says what it says."""
        size, arch = self.model.size, self.backbone.arch
        if size is None:
            return self
        if size not in _sizes(arch):
            valid = ", ".join(_sizes(arch))
            raise ValueError(text("recipe.size" if valid else "recipe.no_sizes", arch=arch, size=size, valid=valid))
        if twice := [name for name in _sizes(arch)[size] if getattr(self.model, name) not in (None, "auto")]:
            keys = ", ".join(f"model.{name}" for name in twice)
            raise ValueError(text("recipe.size_twice", size=size, keys=keys))
        return self

    def reading(self) -> Data:
        """How the rows of [finetune] data are read."""
        tune: Any = self.finetune
        return Data(path=tune.data, **{name: getattr(tune, name) for name in READING})

    @model_validator(mode="after")
    def _has_effect(self) -> "Recipe":
        """A key that nothing would read is refused, not ignored."""
        if self.trained == "finetune" and self.pretrain.model_fields_set:
            raise ValueError(text("recipe.no_effect", key="pretrain", why=f'model.base, task = "{self.task}"'))
        second = self.finetune if self.trained != "finetune" else None
        stages: list[Any] = [self.trained, "finetune"] if second else [self.trained]
        idle = [dict(self.training(stage).idle()) for stage in stages]
        for section, readers in [("train", idle), *((stage, idle[i : i + 1]) for i, stage in enumerate(stages))]:
            for name in getattr(self, section).model_fields_set if getattr(self, section) else ():
                if all(name in each for each in readers):
                    raise ValueError(text("recipe.no_effect", key=f"{section}.{name}", why=readers[0][name]))
            if getattr(getattr(self, section), "sample", None) and not self._some_task(_speaks):
                raise ValueError(text("recipe.no_effect", key=f"{section}.sample", why=f'task = "{self.task}"'))
            if getattr(getattr(self, section), "stop_early", None) and not self._watched(section):
                raise ValueError(text("recipe.nothing_held_out", key=f"{section}.stop_early"))
        return self

    @model_validator(mode="after")
    def _is_shown(self) -> "Recipe":
        """What stands beside a model, and rows that are shown, need a task that speaks or judges."""
        usual = Evaluate()
        given = [name for name in Evaluate.model_fields if getattr(self.evaluate, name) != getattr(usual, name)]
        given = [name for name in given if getattr(self.evaluate, name)]
        judging = (_judges,) if given == ["show"] else (_speaks, _judges)
        if given and not self._some_task(*judging):
            raise ValueError(text("recipe.no_effect", key=f"evaluate.{given[0]}", why=f'task = "{self.task}"'))
        return self

    @model_validator(mode="after")
    def _is_judged(self) -> "Recipe":
        """A judge is for pictures that are made, and n-grams and rows for others; no adversaries stop by their loss."""
        makes, usual = bool(catalogue.stated(self.task, "makes")), Evaluate()
        keys = [f"evaluate.{name}" for name in (("ngram", "samples", "show") if makes else ("judge",))
                if getattr(self.evaluate, name) and getattr(self.evaluate, name) != getattr(usual, name)]  # fmt: skip
        usual_guidance = options.stated(self.task).get("guidance", (None,))[0]
        if not self.options.get("classes", True) and self.options.get("guidance") != usual_guidance:
            raise ValueError(text("recipe.no_effect", key="options.guidance", why="options.classes = false"))
        if catalogue.stated(self.task, "adversarial"):
            sections = [name for name in ("train", self.trained) if getattr(getattr(self, name), "stop_early", None)]
            keys += [f"{name}.stop_early" for name in sections]
        if keys:
            raise ValueError(text("recipe.no_effect", key=keys[0], why=f'task = "{self.task}"'))
        return self

    @model_validator(mode="after")
    def _suits_tables(self) -> "Recipe":
        """Tables and pictures have no tokens."""
        tabular = catalogue.stated(self.task, "shape") in WORDLESS
        unread = {
            "model.context": not self.model.base and self.model.context != ModelSection().context,
            "tokenizer": self.tokenizer != Tokenizer(),
        }
        given = [key for key, other in unread.items() if other]
        if tabular and given:
            raise ValueError(text("recipe.no_effect", key=given[0], why=f'task = "{self.task}"'))
        return self

    @model_validator(mode="after")
    def _pictures_grow(self) -> "Recipe":
        """Some forms see pictures of one size alone."""
        if self.options.get("grow", 1.0) != 1.0 and catalogue.of_family(self.backbone.arch, "ONE_SIZE"):
            why = f'model.arch = "{self.backbone.arch}"'
            raise ValueError(text("recipe.no_effect", key="options.grow", why=why))
        return self

    @model_validator(mode="after")
    def _words_are_compressed(self) -> "Recipe":
        """What 8-bit weights cost is measured on tokens."""
        if self.compress and catalogue.stated(self.task, "shape") in WORDLESS:
            raise ValueError(text("recipe.compressed", task=self.task))
        return self

    @model_validator(mode="after")
    def _form_suits_tasks(self) -> "Recipe":
        """Some forms are for no task but those that name them, some tasks for no other form; none has all dials."""
        arch = self.backbone.arch
        own = catalogue.of_family(arch, "DIALS")
        if own and (given := [name for name in DIALS if name not in own and getattr(self.model, name) is not None]):
            raise ValueError(text("recipe.no_effect", key=f"model.{given[0]}", why=f'model.arch = "{arch}"'))
        tune = self.finetune if self.trained != "finetune" else None  # else its task is that of the recipe
        for task in (each.task for each in (self, tune) if each and each.task):
            suited = catalogue.stated(task, "archs") or (catalogue.stated(task, "arch"),)
            if arch not in suited and (_only_where_named(arch) or all(map(_only_where_named, suited))):
                raise ValueError(text("recipe.other_form", arch=arch, task=task))
        return self

    @model_validator(mode="after")
    def _copies_are_found_so(self) -> "Recipe":
        """Copies of texts are found by their words, and those of pictures by their pixels."""
        pictures = catalogue.stated(self.task, "shape") in PICTURED
        others = ("threshold", "ngram", "size") if pictures else ("correlation",)
        usual, dedup = Dedup(), self.data.dedup
        if given := [name for name in others if getattr(dedup, name) != getattr(usual, name)]:
            raise ValueError(text("recipe.no_effect", key=f"data.dedup.{given[0]}", why=f'task = "{self.task}"'))
        return self

    def _some_task(self, *habits: Callable[[str], bool]) -> bool:
        """Whether a task of this life has one of these habits."""
        named = [each.task for each in (self, self.finetune) if each and each.task]
        return any(habit(task) for task in named for habit in habits)

    def _watched(self, section: str) -> bool:
        """Whether a training of this section has validation rows."""
        tune: Any = self.finetune
        return bool((tune if section == "finetune" and tune and tune.data else self.data).split.valid)

    @property
    def trained(self) -> Literal["pretrain", "finetune"]:
        """The training that stands first: a base is tuned to what rows answer, and where [finetune] says how."""
        tune: Any = self.finetune
        answers = not catalogue.stated(self.task, "unsupervised")
        return "finetune" if self.model.base and (answers or (tune and not tune.rows)) else "pretrain"

    def begins(self, stage: str) -> Begins:
        """What a training begins with."""
        return "pretrained" if self.model.base else "random" if stage == "pretrain" else "trained"

    def training(self, stage: Literal["pretrain", "finetune"]) -> Train:
        """The complete settings of one training: defaults, habits of the stage and the task, [train], then [stage]."""
        said: Any = self.finetune if stage != self.trained and self.finetune else self
        values = _HABITS[stage] | (catalogue.stated(said.task, "habits") or {})
        for section in (self.train, getattr(self, stage)):
            written = section.model_fields_set if section is not None else ()
            given = {name: getattr(section, name) for name in written if name in Train.model_fields}
            given = {name: value for name, value in given.items() if value is not None}
            if any(name in given for name in LENGTHS):
                values = {name: value for name, value in values.items() if name not in LENGTHS}
            values |= given
        return Train(**values)


def _sizes(arch: str) -> dict[str, dict[str, int]]:
    """The named sizes of a form: what each says of the dials."""
    return catalogue.of_family(arch, "SIZES") or {}


def _only_where_named(arch: str | None) -> bool:
    """Whether a form is for no task but those that name it."""
    return catalogue.of_family(arch, "SUITS") == "named"


def _speaks(task: str) -> bool:
    """Whether it goes on with text."""
    return catalogue.stated(task, "arch") is None


def _judges(task: str) -> bool:
    """Whether it answers rows at once."""
    return bool(catalogue.stated(task, "judges"))


_HABITS: dict[str, dict[str, Any]] = {
    "pretrain": {"budget": "5min"},
    "finetune": {"epochs": 3.0, "warmup": 0.05, "schedule": "linear"},
}
