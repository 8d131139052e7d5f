"""A model with first weights from a config alone: `BertForMaskedLM(config)`, `AutoModel.from_config(...)`.

The config is one of transformers, a dict, a config.json or its folder, or the name of a family with sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import catalogue, models, tasks
from danlu.errors import UserError
from danlu.folder import belongs, numbered_labels
from danlu.model import Model
from danlu.models.architecture import Architecture
from danlu.models.folder import CONFIG, described, read_config

if TYPE_CHECKING:
    from danlu.api.pretrained import Pretrained

_NOWHERE = Path("config.json")
UNNAMED = ("LABEL_0", "LABEL_1")  # what transformers calls the labels of a head that has none yet


def fresh(
    cls: type[Pretrained], config: Any, tokenizer: str | Path | None, task: str | None,
    labels: Sequence[str] | None, seed: int, sizes: Mapping[str, Any],
) -> Model:  # fmt: skip
    """A model of a class's family and task; arguments as of `Pretrained.from_config`."""
    told, where = _told(config)
    wanted = task or cls.default_task or catalogue.task_of(told.get("architectures") or ()) or "language_modeling"
    tasks.check(wanted)
    learned: Any = tasks.load(wanted)
    processor = learned.modality().load(_tokenizer(tokenizer, where))
    if isinstance(config, str) and not told:
        family = models.ALIASES.get(config, config)
        architecture = _preset(family, processor, dict(sizes))
    else:
        told = {"model_type": cls.family} | told | dict(sizes)
        told = told if "vocab_size" in told else {**told, "vocab_size": processor.vocab_size}
        family, architecture = str(told["model_type"]), described(told, where / CONFIG if where else _NOWHERE)[1]
        belongs(processor, architecture, told, where or Path(str(tokenizer)))
    if cls.family and cls.family != family:
        raise stranger(cls, where or config if isinstance(config, str | Path) else "config", family, wanted)
    names = labels if labels is not None else (numbered_labels(told) or UNNAMED) if learned.labelled else ()
    made = Model.from_architecture(architecture, processor, wanted, seed, names)
    made.form = family
    return made


def stranger(cls: type[Pretrained], path: object, family: str, task: str) -> UserError:
    """E341, what is opened is of another family than the class."""
    from danlu.api import names

    fitting = names.of(family, task).__name__
    return UserError("E341", path=path, found=family, wanted=cls.family, asked=cls.__name__, fitting=fitting)


def _told(config: Any) -> tuple[dict[str, Any], Path | None]:
    """What a config says, and the folder that it lies in; nothing of the name of a family."""
    if isinstance(config, Mapping):
        return dict(config), None
    if hasattr(config, "to_dict"):
        return dict(config.to_dict()), None
    path = Path(config)
    if isinstance(config, str) and not path.exists() and models.ALIASES.get(config, config) in models.FAMILIES:
        return {}, None
    folder = path.parent if path.is_file() else path
    return read_config(path if path.is_file() else folder / CONFIG), folder


def _tokenizer(given: str | Path | None, where: Path | None) -> Path:
    folder = Path(given) if given is not None else where
    if folder is None:
        raise UserError("E336")
    return folder


def _preset(family: str, processor: Any, sizes: dict[str, Any]) -> Architecture:
    """The family's own form for a depth, whose other sizes follow from it."""
    context, depth = sizes.pop("context", 512), sizes.pop("depth", 4)
    return models.preset(family, processor.vocab_size, context, depth, **sizes)
