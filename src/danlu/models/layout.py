"""How a family's files name their tensors: the backbone once, and each head that its classes put on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from danlu.models import foreign
from danlu.nn.heads import HeadConfig, JointConfig, LabelConfig, VocabularyConfig

Weights = dict[str, Tensor]  # by name
_OLD = {".gamma": ".weight", ".beta": ".bias"}  # of norms, in files from TensorFlow


@dataclass(frozen=True)
class Form:
    """A stock class: the head it has (its free numbers are read from config.json), and the names of its tensors."""

    stock: str
    head: HeadConfig
    names: Mapping[str, str] = field(default_factory=dict)  # ours -> theirs

    def holds(self, head: HeadConfig) -> bool:
        """Whether that head is of this kind."""
        return _kind(self.head) == _kind(head)

    def read(self, config: Mapping[str, Any], dropout: float = 0.0, **vocabulary: Any) -> HeadConfig:
        """The head of a config.json; `vocabulary` are the values of a head over the vocabulary, `dropout` of labels."""
        if isinstance(self.head, LabelConfig):
            return replace(_labels(self.head, config), dropout=dropout)
        if isinstance(self.head, JointConfig):
            words, label = replace(self.head.vocabulary, **vocabulary), replace(self.head.label, dropout=dropout)
            return JointConfig(words, label)
        return replace(self.head, **vocabulary) if isinstance(self.head, VocabularyConfig) else self.head

    def write(self, head: HeadConfig) -> dict[str, Any]:
        """What config.json says of the head."""
        said: dict[str, Any] = {"architectures": [self.stock]}
        if isinstance(head, LabelConfig) and head.answer == "labels" and head.count:
            names = [f"LABEL_{index}" for index in range(head.count)]
            said |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        if isinstance(head, LabelConfig) and head.answer == "boxes":
            said |= {"num_outputs": head.count}
        label = head.label if isinstance(head, JointConfig) else head
        return said | ({"classifier_dropout": label.dropout} if isinstance(label, LabelConfig) else {})


@dataclass(frozen=True)
class Layout:
    """All names of a family. `prefix` stands before the backbone's names, except in files of the bare model."""

    names: Mapping[str, str]  # ours -> theirs, with the prefix
    prefix: str
    forms: tuple[Form, ...]
    ignored: tuple[str, ...] = ()  # tensors in files that hold nothing of their own
    copies: Mapping[str, str] = field(default_factory=dict)  # tied tensors that some files hold twice: copy -> original
    to_theirs: Callable[[Weights], Weights] = dict  # of tensors under our names: fuse, turn, leave out
    to_ours: Callable[[Weights], Weights] = dict
    aliases: Mapping[str, str] = field(default_factory=dict)  # parts of names as some versions write them -> as here

    def form_of(self, head: HeadConfig) -> Form | None:
        """The class that has such a head."""
        return next((form for form in self.forms if form.holds(head)), None)

    def form_named(self, config: Mapping[str, Any]) -> Form:
        """The class that a config.json names; the first of the family where it names none.

        Raises:
            UserError: E320, a class that danlu does not carry.
        """
        stock = (config.get("architectures") or [self.forms[0].stock])[0]
        found = next((form for form in self.forms if form.stock == stock), None)
        if found is None:
            raise foreign.refusal("architectures", stock)
        return found

    def export_weights(self, state: Mapping[str, Tensor], head: HeadConfig) -> Weights:
        """Ours to theirs. Raises UserError E321 for a tensor that has no place."""
        form = self.form_of(head)
        theirs = foreign.renamed(self.to_theirs(dict(state)), {**self.names, **(form.names if form else {})})
        bare = isinstance(head, LabelConfig) and not head.count
        return {name.removeprefix(self.prefix) if bare else name: tensor for name, tensor in theirs.items()}

    def import_weights(self, theirs: Mapping[str, Tensor], head: HeadConfig) -> Weights:
        """Theirs to ours; tensors of another head of the family are left out.

        Raises:
            UserError: E321, a tensor has no place.
        """
        form = self.form_of(head)
        own = {**self.names, **(form.names if form else {})}
        others = {name for each in self.forms for name in each.names.values()} - set(own.values())
        named = {self._modern(name): tensor for name, tensor in theirs.items()}
        for copy, original in self.copies.items():
            named = foreign.without_copy(named, copy, original)
        return self.to_ours(foreign.renamed(named, foreign.inverted(own), {*self.ignored, *others}))

    def doubtful(self, theirs: Mapping[str, Tensor]) -> bool:
        """Whether only values tell if a tensor is one of its own, or a tied one that the file holds twice."""
        return not self.copies.keys().isdisjoint(map(self._modern, theirs))

    def _modern(self, name: str) -> str:
        """The name as the family's classes write it today."""
        for alias, usual in self.aliases.items():
            name = name.replace(alias, usual)
        for old, new in _OLD.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        longer = self.prefix + name
        heads = (each for form in self.forms for each in form.names.values())
        known = {*self.names.values(), *self.ignored, *self.copies, *heads}
        return longer if foreign.template(longer)[0] in known and foreign.template(name)[0] not in known else name


def _kind(head: HeadConfig) -> tuple[object, ...]:
    if isinstance(head, LabelConfig):
        return LabelConfig, head.answer, head.pool, head.hidden, head.count > 0
    return (type(head),)


def _labels(head: LabelConfig, config: Mapping[str, Any]) -> LabelConfig:
    """With the number of labels that the file gives, where that is free."""
    if head.answer == "boxes":
        return replace(head, count=foreign.positive(config, "num_outputs"))
    if head.answer != "labels" or not head.count:
        return head
    named = config.get("id2label")
    return replace(head, count=len(named) if named else foreign.positive(config, "num_labels", 2))
