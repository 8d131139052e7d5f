"""A model's folder, as Hugging Face lays it out: read into a model, and written from one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from danlu import adapt, catalogue, files, models, tasks
from danlu.adapt.fold import merged_state, staying
from danlu.errors import UserError
from danlu.messages.reasons import because
from danlu.models import contest, foreign
from danlu.models import weights as stored
from danlu.models.architecture import Architecture, build, empty, unfilled
from danlu.models.folder import CONFIG, described, fill, fit, read_config
from danlu.nn.generate import WAYS, Sampling
from danlu.randomness import generator

if TYPE_CHECKING:
    from danlu.model import Model

Kind = TypeVar("Kind", bound="Model")
WEIGHTS = "model.safetensors"
GENERATION = "generation_config.json"
_PADDED = ("bert", "roberta", "distilbert", "electra")  # whose config.json and tokenizer both name the filler
_SPARE = 0.1, 1024  # of a table, share and rows that a tokenizer leaves unused at most: tables are rounded up


def read(kind: "type[Kind]", folder: Path) -> "Kind":
    """The model of a folder, on the CPU.

    Raises:
        UserError: what `Model.from_pretrained` raises.
    """
    opened = _opened(folder, deep=True)
    _fits(opened, folder)
    tensors, architecture, processor = stored.read(folder), opened.architecture, opened.processor
    if opened.plain:
        tensors = opened.family.LAYOUT.import_weights(tensors, architecture.head)
    if (folder / contest.FOLDER).exists():
        beside = read(kind, folder / contest.FOLDER)
        architecture = contest.joined_form(architecture, beside.architecture)
        tensors = contest.joined(tensors, beside.net.state_dict())
    room = unfilled if opened.plain else build  # what makes another form of weights reads them before they are filled
    network = room(architecture, generator(0, "load"))
    learned, ours, carried = opened.learned, opened.ours, opened.carried
    numbered = getattr(architecture.head, "count", 0)  # a body alone knows none, whatever its config.json names
    labels = ours.get("labels") or (numbered_labels(carried) if numbered and learned.labelled else ())
    options = ours.get("options") or learned.stated(folder)
    model = kind(network, architecture, learned(processor, labels, architecture.context, options))
    model.taught_chat, model.form = bool(ours.get("chat")), carried["model_type"]
    model.ways = _ways(folder)
    _fill(model, tensors, ours, folder)
    return model


@dataclass(frozen=True)
class _Opened:
    """All of a folder but its weights."""

    ours: Mapping[str, Any]
    carried: Mapping[str, Any]
    family: Any
    architecture: Architecture
    learned: Any
    processor: Any

    @property
    def plain(self) -> bool:
        """Whether its tensors are those of its family."""
        return not self.ours.get("quantized") and not self.ours.get("adapters")


def _opened(folder: Path, *, deep: bool) -> _Opened:
    if (folder / files.MANIFEST).exists() and (names := files.damage(folder, deep=deep)):
        raise UserError("E302", path=folder, names=", ".join(names[:5]))
    config = _config(folder)
    stored.refuse_code(config, folder / CONFIG)
    ours = config.get("danlu", {})
    carried = ours.get("carrier", config)
    family, architecture = described(carried, folder / CONFIG)
    usual = getattr(family, "TASK", "language_modeling")
    task = ours.get("task") or catalogue.task_of(carried.get("architectures") or ()) or usual
    learned: Any = tasks.load(task)
    processor = learned.modality().load(folder)
    belongs(processor, architecture, carried, folder)
    return _Opened(ours, carried, family, architecture, learned, processor)


def belongs(processor: Any, architecture: Architecture, config: Mapping[str, Any], folder: Path) -> None:
    """Raise E328, E333 or E334 where a tokenizer is not that of the weights."""
    seen = {name: getattr(architecture.embed, name, size) for name, size in processor.sizes.items()}
    if seen != processor.sizes:
        raise UserError("E320", where=str(folder / processor.file), key="size", value=str(processor.sizes))
    rows = getattr(architecture.embed, "vocab", 0)
    if processor.vocab_size > rows:
        raise UserError("E328", path=folder, highest=processor.vocab_size - 1, rows=rows)
    if rows - processor.vocab_size > max(_SPARE[0] * rows, _SPARE[1]):
        raise UserError("E333", path=folder, size=f"{processor.vocab_size:,}", rows=f"{rows:,}")
    told = config.get("pad_token_id")
    if config.get("model_type") in _PADDED and told is not None and told != processor.pad_id:
        where = foreign.place(folder / CONFIG, "pad_token_id")
        raise UserError("E334", where=where, path=folder, told=told, found=processor.pad_id)


def check(folder: Path) -> None:
    """Find what is wrong with a model's folder before anything slow: of its weights only names and shapes are read.

    Raises:
        UserError: what `Model.from_pretrained` raises, but for values in files that nobody has sealed.
    """
    if not folder.is_dir():
        raise UserError("E304", path=folder)
    _fits(_opened(folder, deep=False), folder)


def suits(folder: Path, task: str, options: Mapping[str, Any]) -> None:
    """Look whether the model of a folder can go on with a task; none of its weights is read.

    Raises:
        UserError: E121, its weights are 8-bit; E352, it reads something else, or its form has no head for the task;
            what `Task.shaped` raises.
    """
    opened = _opened(folder, deep=False)
    if opened.ours.get("quantized"):
        raise UserError("E121", path=folder)
    kind: Any = tasks.load(task)
    suited = opened.learned.modality() is kind.modality()
    if suited:
        processor = opened.processor.with_control(kind.markers)
        learned = kind(processor, ("", ""), opened.architecture.context, options)
        suited = _headed(learned, contest.alone(opened.architecture), folder)
    if not suited:
        known = opened.learned.__module__.rpartition(".")[2]
        raise UserError("E352", path=folder, found=known, form=opened.carried["model_type"], task=task)


def _headed(learned: Any, architecture: Architecture, folder: Path) -> bool:
    """Whether the form of an architecture has a head for a task."""
    try:
        learned.shaped(architecture)
    except UserError as error:
        if error.code != "E309":
            raise UserError(error.code, where=error.where or str(folder / CONFIG), **error.fields) from error
        return False
    return True


def _fits(opened: _Opened, folder: Path) -> None:
    """Compare the names and shapes of the tensors, of which no value is read, with those of the network."""
    tensors, layout = stored.shapes(folder), opened.family.LAYOUT
    if opened.plain and not layout.doubtful(tensors) and not (folder / contest.FOLDER).exists():
        ours = layout.import_weights(tensors, opened.architecture.head)
        fit(empty(opened.architecture).state_dict(), ours, folder)


def _fill(model: "Model", tensors: dict[str, Tensor], ours: Mapping[str, Any], folder: Path) -> None:
    model.quantized = ours.get("quantized", "")
    model.net = adapt.apply(model.net, ours.get("adapters", ()), 0).requires_grad_(True)
    if model.quantized:
        from danlu.adapt.quantize import quantize

        model.net = quantize(model.net)
    fill(model.net, tensors, folder)


def write(model: "Model", folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write what `read` reads, and transformers and vLLM too; `weights` (fp32, merged) stand for the model's own.

    Raises:
        UserError: E309, no stock family carries such an architecture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = weights or merged_state(model.net, {n: tensor.detach() for n, tensor in model.net.state_dict().items()})
    architecture = contest.alone(model.architecture)
    if architecture is not model.architecture:
        words, (state, others) = contest.parts(model.architecture)[1], contest.parted(state)
        beside = type(model)(model.net, words, tasks.load("masked_language_modeling")(model.processor))
        write(beside, folder / contest.FOLDER, others)
    carrier = models.carrier(architecture)
    if carrier is None:
        raise UserError("E309")
    family = models.by_model_type(carrier)
    stock = getattr(family, "STOCK", True)
    worded = bool(getattr(architecture.embed, "vocab", 0)) and stock  # it reads tokens, as other libraries do
    config = family.to_hf(architecture, _tokens(model) if worded else {})
    ours = {"schema": files.SCHEMA, "task": model.task_name, "chat": model.taught_chat}
    ours |= {"options": model.task.chosen} if model.task.chosen else {}
    known = model.task.labelled or bool(model.task.labels)
    if known and not _numbers_labels(model):
        ours |= {"labels": list(model.task.labels)}
    elif known:
        config |= {"id2label": dict(enumerate(model.task.labels)), "label2id": _numbered(model.task.labels)}
    own = ({"quantized": model.quantized} if model.quantized else {}) | staying(model.net)
    if not model.quantized:
        state = {name: tensor.float() for name, tensor in state.items()}
    if own or not stock:  # no stock family has such tensors: said in the folder, so that none misreads it
        config = {"model_type": "danlu", "danlu": ours | own | {"carrier": config}}
    else:
        config |= {"danlu": ours}
        state = family.LAYOUT.export_weights(state, architecture.head)
    files.write_tensors(folder / WEIGHTS, state)
    files.write_json(folder / CONFIG, config)
    for name, said in (model.task.companions(architecture) if stock and not own else {}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        files.write_json(folder / name, said)
    if worded:
        starts = {name: config[name] for name in ("decoder_start_token_id",) if name in config}
        starts |= {"max_new_tokens": model.task.chosen["longest"]} if starts and "longest" in model.task.chosen else {}
        files.write_json(folder / GENERATION, _generation(model) | starts)
    model.processor.save(folder, typed=getattr(model.architecture.embed, "types", 0) > 1)


def _numbers_labels(model: "Model") -> bool:
    """Whether the outputs of the head are the labels, one for each."""
    head = model.architecture.head
    return getattr(head, "answer", "") == "labels" and getattr(head, "count", 0) == len(model.task.labels)


def _tokens(model: "Model") -> dict[str, Any]:
    end = model.processor.end_turn if model.taught_chat else model.processor.end_id
    start = getattr(model.task, "start_id", None)
    starts = {} if start is None else {"decoder_start_token_id": start}
    return {"bos_token_id": model.processor.end_id, "eos_token_id": end, "pad_token_id": model.processor.pad_id,
            "torch_dtype": "float32", **starts}  # fmt: skip


def _generation(model: "Model") -> dict[str, Any]:
    ends = [model.processor.end_id, *([model.processor.end_turn] if model.taught_chat else [])]
    ids = {"eos_token_id": ends, "pad_token_id": model.processor.pad_id}
    if model.judges:
        return ids
    usual = model.usual
    return {**ids, "do_sample": True, "temperature": usual.temperature, "top_p": usual.top_p, **model.ways}


def shape_of(folder: Path) -> Architecture:
    """The architecture of the model in a folder, without its weights.

    Raises:
        UserError: E301, E303, its config.json cannot be read.
    """
    config = _config(folder)
    carried = config.get("danlu", {}).get("carrier", config)
    return described(carried, folder / CONFIG)[1]


def context_of(folder: Path) -> int:
    """Tokens that the model in a folder sees at once: as is said beside it, where no architecture is (api/encoded.py).

    Raises:
        UserError: E301, E303, its config.json cannot be read.
    """
    return int(_config(folder).get("danlu", {}).get("context") or shape_of(folder).context)


def task_of(folder: Path) -> str:
    """The task that the model in a folder learned; "" where its config.json does not say.

    Raises:
        UserError: E301, E303, its config.json cannot be read.
    """
    config = _config(folder)
    ours = config.get("danlu", {})
    carried = ours.get("carrier", config)
    return ours["task"] if "task" in ours else catalogue.task_of(carried.get("architectures") or ()) or ""


def taught(folder: Path, task: str) -> list[str]:
    """The labels that the model in a folder was taught for a task; none where it was taught another, or without names.

    Raises:
        UserError: E301, E303, its config.json cannot be read.
    """
    config = _config(folder)
    ours = config.get("danlu", {})
    labels = ours.get("labels") or numbered_labels(ours.get("carrier", config))
    return labels if task_of(folder) == task and not unnamed(labels) else []


def unnamed(labels: Sequence[str]) -> bool:
    """Whether labels are only numbered, as transformers does it with those of which it knows nothing."""
    return all(label == f"LABEL_{index}" for index, label in enumerate(labels))


def taught_options(folder: Path, task: str) -> dict[str, Any]:
    """What the model in a folder was taught with for a task, its options and what it learned; {} where of another."""
    ours = _config(folder).get("danlu", {})
    return dict(ours.get("options", {})) if ours.get("task") == task else {}


def numbered_labels(config: Mapping[str, Any]) -> list[str]:
    """The labels of a config.json, in the order of their numbers."""
    named = config.get("id2label") or {}
    return [str(named[number]) for number in sorted(named, key=int)]


def _numbered(labels: Sequence[str]) -> dict[str, int]:
    return {label: number for number, label in enumerate(labels)}


def _ways(folder: Path) -> dict[str, Any]:
    """The usual ways of sampling that the folder gives."""
    path = folder / GENERATION
    if not path.exists():
        return {}
    try:
        said = json.loads(path.read_text("utf-8"))
        ways = {name: said[name] for name in WAYS if said.get(name) is not None}
        Sampling(**ways)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError("E301", path=path, reason=because(error)) from error
    return ways


def _config(folder: Path) -> dict[str, Any]:
    config = read_config(folder / CONFIG)
    try:
        schema = config.get("danlu", {}).get("schema", files.SCHEMA)
    except AttributeError as error:
        raise UserError("E301", path=folder / CONFIG, reason=because(error)) from error
    if schema != files.SCHEMA:
        raise UserError("E303", path=folder, found=schema, known=files.SCHEMA)
    return config
