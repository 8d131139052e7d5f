"""A model with first weights from a config alone: `BertForMaskedLM(config)`, `AutoModel.from_config(...)`.

The config is one of transformers, a dict, a config.json or its folder, or the name of a family with sizes.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import catalogue, models, tasks
from danlu.config import Tokenizer
from danlu.errors import UserError
from danlu.folder import belongs, numbered_labels
from danlu.modalities.text import Text
from danlu.model import Model
from danlu.models.architecture import Architecture
from danlu.models.folder import CONFIG, described, read_config

if TYPE_CHECKING:
    from danlu.api.pretrained import Pretrained

_NOWHERE = Path("config.json")
_FEWEST = 259  # tokens: every byte, and those that control
UNNAMED = ("LABEL_0", "LABEL_1")  # what transformers calls the labels of a head that has none yet


@dataclass(frozen=True)
class Unread:
    """Of a model that has learned no words yet: itself with words, and what vocabulary it shall learn."""

    again: Callable[[Text], Model]
    wanted: Tokenizer


def fresh(
    cls: type[Pretrained], config: Any, tokenizer: str | Path | None, task: str | None,
    labels: Sequence[str] | None, seed: int, sizes: Mapping[str, Any], words: Text | None = None,
) -> Model:  # fmt: skip
    """A model of a class's family and task; arguments as of `Pretrained.from_config`.

    `words` are those that it reads, where it has no tokenizer: until some are learned, letters and bytes.
    """
    told, where = _told(config)
    family = models.ALIASES.get(config, config) if isinstance(config, str) and not told else ""
    wanted = task or cls.default_task or catalogue.task_of(told.get("architectures") or ()) or "language_modeling"
    tasks.check(wanted)
    learned: Any = tasks.load(wanted)
    told = told if family else {"model_type": cls.family} | told | dict(sizes)
    if wordless(config, tokenizer):
        processor = words or _letters(learned, family or str(told["model_type"]))
        told |= {"vocab_size": min(told.get("vocab_size", processor.vocab_size), processor.vocab_size)}
        told |= {name: getattr(processor, f"{name[:3]}_id") for name in ("pad_token_id",) if name in told}
    else:
        processor = learned.modality().load(Path(tokenizer) if tokenizer is not None else where)
    if family:
        architecture = _preset(family, processor, dict(sizes))
    else:
        told = told if "vocab_size" in told else {**told, "vocab_size": processor.vocab_size}
        family, architecture = str(told["model_type"]), described(told, where / CONFIG if where else _NOWHERE)[1]
        belongs(processor, architecture, told, where or Path(str(tokenizer or "config")))
    if cls.family and cls.family != family:
        raise stranger(cls, where or config if isinstance(config, str | Path) else "config", family, wanted)
    names = labels if labels is not None else (numbered_labels(told) or UNNAMED) if learned.labelled else ()
    made = Model.from_architecture(architecture, processor, wanted, seed, names)
    made.form = family
    return made


def asked_labels(labels: Sequence[str] | None, count: int | None) -> tuple[str, ...] | None:
    """The labels that a call names, or numbers; None where it does neither."""
    if labels is None and count is None:
        return None
    return tuple(f"LABEL_{index}" for index in range(count or 0)) if labels is None else tuple(map(str, labels))


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


def wordless(config: Any, tokenizer: str | Path | None) -> bool:
    """Whether nothing says how text becomes tokens: then `fit` learns it from the rows to train on."""
    return tokenizer is None and _told(config)[1] is None


def unread(
    cls: type[Pretrained], config: Any, tokenizer: str | Path | None, task: str | None,
    labels: Sequence[str] | None, seed: int, sizes: Mapping[str, Any],
) -> Unread | None:  # fmt: skip
    """What a model without a tokenizer is to learn; None of one that has its own. Arguments as of `fresh`."""
    if not wordless(config, tokenizer):
        return None
    again = partial(fresh, cls, config, tokenizer, task, labels, seed, sizes)
    size = (_told(config)[0] | dict(sizes)).get("vocab_size", "auto")
    return Unread(again, Tokenizer(type=catalogue.of_family(again().form, "TOKENIZER") or "bpe", vocab_size=size))


def _letters(learned: Any, family: str) -> Text:
    """What a model reads that has learned no words yet.

    Raises:
        UserError: E336, its rows are no texts.
    """
    if learned.modality() is not Text:
        raise UserError("E336")
    kind = catalogue.of_family(family, "TOKENIZER") or "bpe"
    return Text.fit([string.printable], type=kind, vocab_size=_FEWEST).with_control(learned.markers)


def _preset(family: str, processor: Any, sizes: dict[str, Any]) -> Architecture:
    """The family's own form for a depth, whose other sizes follow from it."""
    context, depth = sizes.pop("context", 512), sizes.pop("depth", 4)
    return models.preset(family, processor.vocab_size, context, depth, **sizes)
