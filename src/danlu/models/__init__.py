"""Named architectures: a preset, and the way to and from the stock files of its family; no forward.

A family is one file here with `preset`, `to_hf`, `from_hf` and a LAYOUT of its tensors' names; its name is the file's
name, which is also the `model_type` of its config.json. One that a recipe can begin with says which tasks it SUITS.
What else it may state: an ALIAS, a TOKENIZER other than bpe, the DEPTH where the recipe leaves it open, named SIZES,
the DIALS that a recipe can turn beside the depth.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from danlu import catalogue
from danlu.errors import UserError

if TYPE_CHECKING:
    from danlu.models.architecture import Architecture
    from danlu.nn.heads import JointConfig, LabelConfig, VocabularyConfig

# Of two whose form holds the same model the earlier carries it: Llama before Mistral, BERT before ELECTRA.
FAMILIES = catalogue.family_names()
ALIASES = catalogue.aliases()
names = catalogue.families


def family(name: str) -> ModuleType:
    """The module of a family, by its name or alias; ValueError where there is none."""
    name = ALIASES.get(name, name)
    if name not in FAMILIES:
        raise ValueError(f"no family of models is named {name!r}; there are {', '.join(FAMILIES)}")
    return importlib.import_module(f"danlu.models.{name}")


def preset(name: str, vocab: int, context: int, depth: int, **choices: Any) -> Architecture:
    """The architecture of a family at a depth, with the sizes that a recipe chose.

    Raises:
        UserError: E323, the family lacks one of them, or they do not fit together.
    """
    module = family(name)
    try:
        return module.preset(vocab, context, depth, **choices)
    except ValueError as error:
        raise UserError("E323", form=name, reason=str(error)) from error


def by_model_type(model_type: str) -> ModuleType:
    """The module of a stock file.

    Raises:
        UserError: E322, danlu does not open that kind; E329, it names none.
    """
    if not model_type:
        raise UserError("E329", where="config.json", key="model_type")
    if model_type not in FAMILIES:
        raise UserError("E322", where="config.json", found=model_type, valid=", ".join(FAMILIES))
    return family(model_type)


def carries(name: str, architecture: Architecture) -> bool:
    """Whether the form of a family holds that model exactly: its config.json, read back, is that model again."""
    from danlu.models.architecture import computed
    from danlu.nn.embed import TokensConfig

    module = family(name)
    if module.LAYOUT.form_of(architecture.head) is None:
        return False
    kinds = getattr(module, "EMBED", TokensConfig)
    if type(architecture.embed) not in (kinds if isinstance(kinds, tuple) else (kinds,)):
        return False
    try:
        return computed(module.from_hf(module.to_hf(architecture, {}))) == computed(architecture)
    except UserError:
        return False


def carrier(architecture: Architecture) -> str | None:
    """The stock family whose form is exactly this one, or None."""
    return next((name for name in FAMILIES if carries(name, architecture)), None)


def label_head(architecture: Architecture, count: int, *, each: bool = False, answer: str = "labels") -> LabelConfig:
    """The head that the architecture's family puts on it for `count` labels, of a text or of each of its tokens.

    `answer`: "choice" for one score per candidate.

    Raises:
        UserError: E309, no family carries the architecture, or not with such a head.
    """
    from danlu.nn.heads import LabelConfig

    name = carrier(architecture)
    name = name and getattr(family(name), "LABELLED", name)
    for form in family(name).LAYOUT.forms if name else ():
        head = form.head
        if isinstance(head, LabelConfig) and head.answer == answer and head.count and (head.pool == "each") == each:
            return replace(head, count=count)
    raise UserError("E309")


def word_head(architecture: Architecture) -> VocabularyConfig:
    """The head over the vocabulary: its own, or the one that the architecture's family puts on it.

    Raises:
        UserError: E309, no family carries the architecture, or not with such a head.
    """
    from danlu.nn.heads import JointConfig, VocabularyConfig

    if isinstance(architecture.head, JointConfig):
        return architecture.head.vocabulary
    if isinstance(architecture.head, VocabularyConfig):
        return architecture.head
    head: VocabularyConfig = _first_head(architecture, VocabularyConfig)
    return replace(head, norm_eps=architecture.core.norm_eps) if head.transform != "none" else head


def joint_head(architecture: Architecture) -> JointConfig:
    """The head that the architecture's family puts on it for words and for one label of each text.

    Raises:
        UserError: E309, no family carries the architecture, or not with such a head.
    """
    from danlu.nn.heads import JointConfig

    return replace(_first_head(architecture, JointConfig), vocabulary=word_head(architecture))


def _first_head(architecture: Architecture, kind: type[Any]) -> Any:
    name = carrier(architecture)
    for form in family(name).LAYOUT.forms if name else ():
        if isinstance(form.head, kind):
            return form.head
    raise UserError("E309")


def span_head(architecture: Architecture) -> LabelConfig:
    """The head of the architecture's family for the start and the end of a span among the tokens.

    Raises:
        UserError: E309, no family carries the architecture, or not with such a head.
    """
    from danlu.nn.heads import LabelConfig

    name = carrier(architecture)
    for form in family(name).LAYOUT.forms if name else ():
        if isinstance(form.head, LabelConfig) and form.head.answer == "span":
            return form.head
    raise UserError("E309")


def bare_head(architecture: Architecture) -> LabelConfig:
    """The head of the family's bare model, which answers with states: its own where it is such.

    Raises:
        UserError: E309, no family carries the architecture, or not without another head.
    """
    from danlu.nn.heads import LabelConfig

    name = carrier(architecture)
    own = [architecture.head, *(form.head for form in (family(name).LAYOUT.forms if name else ()))]
    for head in own:
        if isinstance(head, LabelConfig) and not head.count:
            return head
    raise UserError("E309")
