"""A model that trains, measures, predicts and saves itself: Hugging Face's names, Keras's verbs, a plain nn.Module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from danlu import device as devices
from danlu import files, models, tasks
from danlu.api.fresh import UNNAMED, Unread, asked_labels, fresh, stranger, unread
from danlu.config import Begins
from danlu.errors import UserError
from danlu.folder import unnamed
from danlu.messages import text
from danlu.model import Model, Output
from danlu.nn.masks import openings
from danlu.runs import model_folder
from danlu.tasks.task import Row


class Pretrained(Model):
    """`from_pretrained`, then `fit`, `evaluate`, `predict`, `save_pretrained`.

    `forward(**batch)` gives `.loss` and `.logits` for a loop of your own. All that is wrong with arguments or rows is
    raised as UserError before anything slow.
    """

    family: ClassVar[str] = ""  # of models that the class opens; "" = any
    default_task: ClassVar[str] = ""  # "" = the folder's
    reading: Mapping[str, Any] = {}  # how the rows that it was fitted to were read
    origin: Path | None = None  # the folder that it was loaded from
    begins: Begins = "random"  # what its next training begins with
    _first: Tensor | None = None  # what was drawn for a new head
    unread: Unread | None = None  # until it has learned its words

    def __init__(self, config: Any, architecture: Any = None, task: Any = None, **wishes: Any):
        """`Class(config, tokenizer="folder")`: first weights, as `from_config` gives them.

        Within danlu: of a network, its architecture and its task.
        """
        if architecture is not None:
            super().__init__(config, architecture, task)
            return
        made = type(self).from_config(config, task=task, **wishes)
        super().__init__(made.net, made.architecture, made.task)
        self.form, self._first, self.unread = made.form, made._first, made.unread

    # --- folders ---

    @classmethod
    def from_config(
        cls, config: Any, *, tokenizer: str | Path | None = None, task: str | None = None,
        labels: Sequence[str] | None = None, num_labels: int | None = None, seed: int = 1, **sizes: Any,
    ) -> Self:  # fmt: skip
        """A model with first weights, which are a function of the seed alone.

        Args:
            config: a config of transformers, a dict, a config.json or its folder, or the name of a family ("bert",
                "gpt"), whose form is made for `depth=4` and `context=512`.
            tokenizer: the folder with its tokenizer; without, the config's own, else `fit` learns a vocabulary from
                the rows to train on, as a recipe does.
            task, labels, num_labels: as of `from_pretrained`.
            sizes: values in place of the config's, by its names; of a family depth, context, width, heads, hidden.

        Raises:
            UserError: E336 no tokenizer, and rows that are no texts; E320-E323, E327, E329 what the config asks for
                cannot be built; E328, E333, E334 the tokenizer is another model's; E341 the config is of another family
                than the class.
        """
        from danlu.api import names

        asked = (config, tokenizer, task, asked_labels(labels, num_labels), seed, sizes)
        made = fresh(cls, *asked)
        model: Any = names.of(made.form, made.task_name)._of(made)
        model.unread = unread(cls, *asked)
        model._first = _marks(model.net).clone() if model.task.labelled else None
        return model

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str = "cpu", *, task: str | None = None,
        labels: Sequence[str] | None = None, num_labels: int | None = None, seed: int = 1,
    ) -> Self:  # fmt: skip
        """A model folder, a run or a recipe that has run.

        Args:
            device: where it is: cpu, cuda, cuda:1, mps, or auto.
            task: what it shall do (danlu list tasks); without, what the class does, or the folder's model.
            labels: of a new head, where it shall know others than the folder's; `fit` finds them in the rows else.
            num_labels: or only how many, named LABEL_0, LABEL_1, ...
            seed: of the first weights of a new head.

        Raises:
            UserError: E341 the folder holds a model of another family; those of `Model.from_pretrained`.
        """
        from danlu.api import names

        loaded = Model.from_pretrained(path, devices.chosen(device))
        family = cls.family or loaded.form
        if family != loaded.form and not models.carries(family, loaded.architecture):
            raise stranger(cls, path, loaded.form, task or cls.default_task)
        wanted = task or cls.default_task or loaded.task_name
        tasks.check(wanted)
        made: Any = names.of(family, wanted)._of(loaded)
        made._take_on(wanted, asked_labels(labels, num_labels), seed)
        made.origin, made.begins = model_folder(path), "pretrained"
        return made

    @classmethod
    def _of(cls, loaded: Model) -> Self:
        """The same network as a model of this class."""
        made = cls(loaded.net, loaded.architecture, loaded.task)
        for name in ("taught_chat", "ways", "quantized", "form"):
            setattr(made, name, getattr(loaded, name))
        return made.eval()

    def _take_on(self, task: str, asked: Sequence[str] | None, seed: int) -> None:
        """Learn to do a task: with the head that is there, or a new one."""
        kind: Any = tasks.load(task)
        labelled = kind.labelled
        same = task == self.task_name and bool(self.task.labels or not labelled)  # a body alone has no labels
        if same and (not labelled or asked is None or tuple(asked) == self.task.labels):
            return
        renamed = same and unnamed(self.task.labels) and len(asked or ()) == len(self.task.labels)
        names = asked if asked is not None else UNNAMED if labelled else ()
        self._be(task, names, self.task.chosen if same else {}, seed, fresh=labelled and not renamed)

    def _be(self, task: str, labels: Sequence[str], options: Mapping[str, Any], seed: int, *, fresh: bool) -> None:
        """Do a task with labels from now on, with a new head or where that fits the same."""
        made = self.for_task(task, seed, labels, options, fresh=fresh)
        self.net, self.architecture = made.net.to(self.net.device).train(self.net.training), made.architecture
        self.task = made.task
        self._first = _marks(self.net).clone() if fresh else self._first

    @property
    def untrained(self) -> bool:
        """Whether its head has the weights that were drawn for it: what it predicts is chance."""
        return self._first is not None and self._first.equal(_marks(self.net).to(self._first.device))

    @property
    def asked_for(self) -> tuple[str, dict[str, Any]]:
        """Its task, and the options that it has."""
        return self.task_name, dict(self.task.chosen)

    def grow(self, columns: Path, seed: int) -> None:
        """Have the tokens of an encode folder: a task may bring some that the model lacks, or all are learned there."""
        known = type(self.processor).load(columns)
        grown = self.unread.again(known) if self.unread else self.grown(known, seed)
        if grown is not self:
            free = {name: p.requires_grad for name, p in self.net.named_parameters()}
            self.net, self.architecture = grown.net.to(self.net.device).train(self.net.training), grown.architecture
            self.task = grown.task
            for name, p in self.net.named_parameters():
                p.requires_grad_(free[name])
        self._first = _marks(self.net).clone() if self.unread and self.task.labelled else self._first
        self.unread = None

    def adopt(self, labels: Sequence[str], options: Mapping[str, Any], seed: int) -> None:
        """Know these labels, the rows' own, and these options: with the head that was trained for them, or a new one.

        Raises:
            UserError: E313, the head was trained for others.
        """
        if not self.task.labelled or tuple(labels) == self.task.labels:
            if (dict(options), tuple(labels)) != (self.task.chosen, self.task.labels):
                self._be(self.task_name, labels, options, seed, fresh=False)
            return
        fits = unnamed(self.task.labels) and len(labels) == len(self.task.labels)
        if not self.untrained and not fits:
            raise UserError("E313", ours=", ".join(self.task.labels[:8]), theirs=", ".join(labels[:8]))
        self._be(self.task_name, labels, options, seed, fresh=self.untrained)

    def save_pretrained(self, folder: str | Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write the folder that danlu, transformers and vLLM open; a new one appears whole or not at all."""
        target = Path(folder).resolve()
        if target.exists() and any(target.iterdir()):
            super().save_pretrained(target, weights)
            if (target / files.MANIFEST).exists():
                files.seal(target)
        else:
            with files.staged(target) as out:
                super().save_pretrained(out, weights)
        self.origin = target

    # --- learning and measuring ---

    def fit(self, train: Any, *, folder: str | Path | None = None, quiet: bool = False, **settings: Any) -> Any:
        """Train on rows, in place; the weights of the best look at held-out rows stay.

        Args:
            train: a path (any file, folder or glob that danlu reads), a DataFrame, a Hugging Face dataset, a list of
                dicts, (x, y) of texts and labels, or a DataLoader.
            folder: where recipe, log and checkpoints stay; the same call again goes on from there, bit by bit.
            settings: keys of a recipe's [train], [data], [finetune] and [system] by their own names, as epochs=3,
                lr=5e-5, tune="lora", columns={"text": "review"}, valid="dev.csv"; and context, the tokens of a row.

        Returns:
            A History: figures of all steps and looks.

        Raises:
            UserError: an argument, the rows or the labels cannot be used; E140, `folder` holds another training.
            KeyboardInterrupt: it was stopped; the model has the weights that it had reached.
        """
        from danlu.api.fitting import fit

        history = fit(self, train, folder, quiet, settings)
        self.origin = None  # it is no longer what lies there
        return history

    def settle(self, weights: Mapping[str, Tensor] | None, free: Mapping[str, bool]) -> None:
        """Be a plain fp32 network again, with these weights, or its own; `free` says what may be trained next."""
        from danlu.adapt.fold import merge, merged_state

        state = dict(weights) if weights is not None else self.net.state_dict()
        state = merged_state(self.net, {name: tensor.float() for name, tensor in state.items()})
        self.net = merge(self.net).float()
        for name, p in self.net.named_parameters():
            p.data = state[name].to(p.device, copy=True)  # what is given may lie in a file that goes
            p.requires_grad_(free.get(name, True))

    def evaluate(self, test: Any, *, quiet: bool = False, **settings: Any) -> Any:
        """Measure on rows, of any kind that `fit` takes; settings are keys of a recipe's [data] and [system].

        Returns:
            A Report: figures by name, `.confusion`, `.errors(20)`.

        Raises:
            UserError: the rows cannot be used; E313 a label the model does not know; E142, its head is not trained.
        """
        from danlu.api.measuring import evaluate

        return evaluate(self, test, quiet, settings)

    def lr_find(
        self, train: Any, *, steps: int = 100, lowest: float = 1e-6, highest: float = 1.0, quiet: bool = False,
        **settings: Any,
    ) -> Any:  # fmt: skip
        """The range test of learning rates (Smith 2017, 1506.01186), on a copy: `steps` steps, the rate rising.

        Returns:
            Rates: `.suggestion`, `.lr` and `.loss`, which show themselves as a curve.

        Raises:
            UserError: as of `fit`.
        """
        from danlu.api.rates import find

        return find(self, train, steps, (lowest, highest), quiet, settings)

    # --- looking ---

    def show_batch(self, data: Any, *, rows: int = 2, quiet: bool = True, **settings: Any) -> Any:
        """What the network really sees of data: the tokens of packed rows, what is learned of each, who sees whom.

        Returns:
            Seen: `.rows` of places, `.batch` of tensors (B, T).

        Raises:
            UserError: as of `fit`.
        """
        from danlu.api.seen import show

        return show(self, data, rows, quiet, settings)

    def summary(self, depth: int = 3) -> Any:
        """The parts down to a depth, the shapes of their matrices, parameters in all and to be trained, and memory."""
        from danlu.api.parts import Summary

        return Summary(self, depth)

    def freeze(self, *names: str) -> Self:
        """Leave parts as they are in training: by name, as "embed", "core.blocks.0-9" or "encoder.layer.0-9" in the
        names of the family's files; without a name, all but the head.

        Raises:
            UserError: E143, a name means no part.
        """
        from danlu.api.parts import matching

        head = {name for name, _ in self.net.named_parameters() if not name.startswith("head.")}
        return self._free(matching(self, names) if names else head, free=False)

    def unfreeze(self, *names: str, last: int | None = None) -> Self:
        """Train parts again: by name, or the last so many blocks and all that follows; without either, everything.

        Raises:
            UserError: E143, a name means no part.
        """
        from danlu.api import parts

        every = {name for name, _ in self.net.named_parameters()}
        chosen = parts.matching(self, names) if names or last is not None else every
        return self._free(chosen | (parts.last(self, last) if last is not None else set()), free=True)

    def _free(self, chosen: set[str], *, free: bool) -> Self:
        for name, p in self.net.named_parameters():
            if name in chosen:
                p.requires_grad_(free)
        return self

    # --- use ---

    def predict(self, rows: Any, sampling: Any = None) -> Any:
        """What the model says of a text, or of each of several: texts, pairs of texts, dicts, or all that `fit` takes.

        A model that goes on with text gives a text for each, others what their task predicts: {"label", "score", ...}.
        """
        if isinstance(rows, str | Mapping):
            return self._said([rows], sampling)[0]
        if isinstance(rows, list) and all(isinstance(each, str | tuple | Mapping) for each in rows):
            return self._said(rows, sampling)
        from danlu.api.measuring import asked

        return self._said(asked(self, rows), sampling)

    def explain(self, row: Any, target: str = "") -> Any:
        """Which words, columns or regions the answer to a text, a pair of texts, a dict or a picture (its path, or its
        bytes in base64) rests on; or what speaks for another answer, `target`: a label, a candidate's number, a token.

        Integrated gradients (1703.01365) and attention rollout (2005.00928), each with how much sooner the answer
        falls when its words go first than when any do.

        Returns:
            Explained: `.show()`, `.save("page.html")` or, of a picture, `.save("why.png")`, `.words`, `.scores`,
            `.faithfulness`, `.table()`.

        Raises:
            UserError: E609 there is no number to explain, E610 no such answer, E611 no word, E613 one text where the
                likeness of two is explained; those of `predict`.
        """
        from danlu.api.explained import Explained, asked
        from danlu.explain import explain

        return Explained.of(explain(self, asked(self, row), target))

    def _said(self, rows: Sequence[Any], sampling: Any) -> list[Any]:
        if not self.judges and not self.task.ahead:  # it fills what is masked
            from danlu.api.pipeline import fill

            return [fill(self, self._row(row)["text"]) for row in rows]
        if not self.judges:
            return [super(Pretrained, self).predict(next(iter(self._row(row).values())), sampling) for row in rows]
        if self.untrained:
            warnings.warn(text("api.untrained"), stacklevel=3)
        if rows and isinstance(rows[0], Mapping) and "input_ids" in rows[0]:
            from danlu.api.numbers import examples

            return self._found(examples(self, rows))
        return self.judge([self._row(row) for row in rows]) if rows else []

    def _row(self, given: Any) -> Row:
        """The row that a text, several of them, or a dict stands for.

        Raises:
            UserError: E607, an input is missing or no text; E622, it is no wish.
        """
        if self.task.wishes:
            return dict(given) if isinstance(given, Mapping) else self.asked(str(given))
        several = given if isinstance(given, tuple) else (given,)
        row = dict(given) if isinstance(given, Mapping) else dict(zip(self.asks, several, strict=False))
        row |= {ours: row[yours] for ours, yours in self.reading.get("columns", {}).items() if yours in row}
        return self.checked({name: row[name] for name in self.asks if row.get(name) is not None})

    def forward(self, **batch: Tensor) -> Output:
        """logits; with labels also the mean loss. The batch is danlu's own, or has the names of transformers'.

        Shapes: input_ids, attention_mask, token_type_ids (B, T); labels (B,) of whole texts or (B, T) of tokens: with
        an attention_mask they stand at their own tokens, as transformers has it, and -100 is not counted.
        """
        return super().forward(**(self._ours(batch) if "attention_mask" in batch else batch))

    def _ours(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch of transformers' names under ours."""
        made = {name: tensor for name, tensor in batch.items() if name not in ("attention_mask", "token_type_ids")}
        made["segment_ids"] = batch["attention_mask"].long()
        if "token_type_ids" in batch and self.architecture.tokens.types:
            made["type_ids"] = batch["token_type_ids"]
        if "labels" in batch:
            made["labels"] = self._placed(batch["labels"], made["segment_ids"])
        return made

    def _placed(self, labels: Tensor, segments: Tensor) -> Tensor:
        """Labels (B, T), each where the task looks for it."""
        if labels.ndim == 1:
            nothing = float("nan") if labels.is_floating_point() else -100
            spread = torch.full(segments.shape, nothing, dtype=labels.dtype, device=labels.device)
            return spread.masked_scatter(openings(segments), labels)
        if not self.task.ahead:
            return labels
        return torch.nn.functional.pad(labels[:, self.task.ahead :], (0, self.task.ahead), value=-100)


def _marks(net: Any) -> Tensor:
    """The matrix of a head by which it is known whether it was trained."""
    return [p.detach() for p in net.head.parameters() if p.ndim == 2][-1]
