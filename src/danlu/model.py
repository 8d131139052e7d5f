"""A model with everything it needs to be used: network, processor, task; saved as a Hugging Face folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from torch import Tensor, nn

from danlu import adapt, tasks
from danlu.adapt import peft
from danlu.adapt.fold import staying
from danlu.errors import UserError
from danlu.folder import read, unnamed, write
from danlu.modalities.chat import prompted
from danlu.models import contest
from danlu.models.architecture import Architecture, build
from danlu.models.folder import CONFIG
from danlu.nn.generate import Sampling, generate
from danlu.nn.heads import inherit
from danlu.nn.network import Network
from danlu.nn.stems import PLACES, PatchesConfig, resampled
from danlu.randomness import generator
from danlu.tasks.task import Row, Task

CONTINUES = Sampling(temperature=0.8, top_p=0.95, seed=1)  # how a model speaks unless it is told otherwise
_TOGETHER = 32  # examples of one forward pass, at most
_AT_ONCE = 4096  # rows whose examples are held at once
ANSWERS = replace(CONTINUES, repetition_penalty=1.2)  # small models repeat themselves in chats; 1.2: arXiv:1909.05858


@dataclass
class Output:
    """What a forward pass gives: `loss` is None without labels."""

    loss: Tensor | None
    logits: Tensor


class Model(nn.Module):
    """An nn.Module with one child, `net`. Loop, adapters and export see only that child."""

    def __init__(self, net: Network, architecture: Architecture, task: Task):
        """The task brings its labels, its options and the processor of its rows, for the architecture's context."""
        super().__init__()
        self.net = net
        self.architecture, self.task = architecture, task
        self.quantized = ""

    @property
    def processor(self) -> Any:
        return self.task.processor

    @property
    def task_name(self) -> str:
        return self.task.name

    # --- what the serving engine asks for ---

    @property
    def network(self) -> Network:
        return self.net

    @property
    def context(self) -> int:
        return self.architecture.context

    @property
    def chat(self) -> bool:
        """Whether it was taught the chat template."""
        return self.taught_chat

    @property
    def judges(self) -> bool:
        """Whether it answers a row at once (a class, a score) instead of going on with text."""
        return self.task.judges

    @property
    def embeds(self) -> bool:
        """Whether its answer to a text is a vector."""
        return "embedding" in self.task.outputs

    @property
    def makes(self) -> bool:
        """Whether it makes new things of next to nothing."""
        return self.task.makes

    @property
    def asks(self) -> dict[str, bool]:
        """What it reads of a row, and whether each must be there."""
        if self.task.wishes:
            return dict.fromkeys(self.task.wishes, False)
        return {name: name not in self.task.optional for name in self.task.inputs}

    @property
    def usual(self) -> Sampling:
        """How it speaks unless it is told otherwise: what its folder says, else our own way."""
        return replace(ANSWERS if self.taught_chat else CONTINUES, **self.ways)

    taught_chat: bool = False
    form: str = ""  # the family of the folder that it was loaded from
    new: tuple[str, ...] = ()  # parts that have first weights: they are trained whatever else is not
    ways: Mapping[str, Any] = MappingProxyType({})

    # --- use ---

    def forward(self, **batch: Tensor) -> Output:
        """logits (B, T, V); with labels (B, T) also the mean loss over those that are not -100."""
        logits = self.net(batch)
        if "labels" not in batch:
            return Output(None, logits)
        totals, counts = self.task.loss(self.net, batch), self.task.counts(batch)
        return Output(sum(total / counts[name].clamp(min=1) for name, total in totals.items()), logits)  # type: ignore[arg-type]

    def stream(self, prompt: str, sampling: Sampling | None = None) -> Iterator[str]:
        """Continue a text, or answer it where the model was taught to chat; every piece is whole characters.

        Raises:
            UserError: E348, it does not go on with what it reads, but writes another text.
        """
        if self.architecture.core.memory:
            raise UserError("E348", task=self.task_name)
        ends = {self.processor.end_id} | ({self.processor.end_turn} if self.taught_chat else set())
        ids = prompted(self.processor, prompt, chat=self.taught_chat)[-self.context + 1 :]
        sampling = sampling or self.usual
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, self.context - len(ids)))
        detokenizer = self.processor.stream()
        for token in generate(self.net, ids, sampling, end_ids=ends):
            yield detokenizer.push(int(token))
        yield detokenizer.flush()

    def predict(self, prompt: str, sampling: Sampling | None = None) -> Any:
        """Continue a text once, or answer it; where the task judges rows, what it says of the row that is asked."""
        if self.judges:
            return self.judge([self.asked(prompt)])[0]
        return "".join(self.stream(prompt, sampling))

    def asked(self, given: str) -> Row:
        """The row that a text stands for: its one input, or a JSON object of them.

        Raises:
            UserError: E607, as of `checked`; E622, it is no wish.
        """
        if self.task.wishes:
            return self._wish(given)
        if read := getattr(self.processor, "read", None):
            return {next(iter(self.asks)): read(given)}
        row: Any = {next(iter(self.asks)): given}
        if given.lstrip().startswith("{"):
            with suppress(ValueError):
                row = json.loads(given)
        return self.checked(row)

    def _wish(self, given: str) -> Row:
        """What is wished for, in JSON; all as usual where nothing is said. Raises UserError E622 for anything else."""
        try:
            row = json.loads(given) if given.strip() else {}
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError("E622", usual=json.dumps(self.task.wishes))
        return row

    def checked(self, row: Mapping[str, Any]) -> Row:
        """The row, which has the inputs of the task.

        Raises:
            UserError: E607, an input is missing, unknown or no text; E614, fewer than two candidates, or one that is no
                text.
        """
        needed = {name for name, must in self.asks.items() if must}
        legible = all(isinstance(each, list if name == "choices" else str) for name, each in row.items())
        if not needed <= row.keys() <= self.asks.keys() or not legible:
            example = {name: ["...", "..."] if name == "choices" else "..." for name in self.asks}
            raise UserError("E607", needed=", ".join(self.asks), example=json.dumps(example))
        if "choices" in row and not _choices(row["choices"]):
            raise UserError("E614", found=repr(row["choices"])[:60])
        return dict(row)

    def judge(self, rows: Sequence[Row]) -> list[Row]:
        """What the task says of rows, in their order; each is read as one of the rows to train on is.

        Raises:
            UserError: a row that the task cannot read.
        """
        return [self.task.alone(answer) for answer in self._joined(rows)]

    def measured(self, rows: Sequence[Row]) -> list[Row]:
        """`judge` of rows whose answers are known, in the light of each other where that is what counts."""
        return self.task.together(self._joined(rows), rows)

    def _joined(self, rows: Sequence[Row]) -> list[Row]:
        pieces = (rows[at : at + _AT_ONCE] for at in range(0, len(rows), _AT_ONCE))
        return [answer for piece in pieces for answer in self._piece(piece)]

    def _piece(self, rows: Sequence[Row]) -> list[Row]:
        examples = [self.task.asking(row) for row in rows]
        found = self._found([window for each in examples for window in each])
        bounds = [0, *accumulate(map(len, examples))]
        return [self.task.joined(row, found[a:b]) for row, (a, b) in zip(rows, pairwise(bounds), strict=True)]

    def _found(self, examples: Sequence[Row]) -> list[Row]:
        """What the task predicts for examples, in their order; those of like length are read together."""
        answers: list[Row] = [{}] * len(examples)
        order = sorted(range(len(examples)), key=lambda place: len(examples[place]["input_ids"]))
        training = self.net.training
        self.net.eval()
        for chosen in (order[at : at + _TOGETHER] for at in range(0, len(order), _TOGETHER)):
            batch = self.processor.collate([examples[place] for place in chosen])
            said = self.task.predict(self.net, {name: each.to(self.net.device) for name, each in batch.items()})
            for place, answer in zip(chosen, said, strict=True):
                answers[place] = answer
        self.net.train(training)
        return answers

    # --- folders ---

    @classmethod
    def from_architecture(
        cls,
        architecture: Architecture,
        processor: Any,
        task: str,
        seed: int = 1,
        labels: Sequence[str] = (),
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> Self:
        """A fresh model; its weights are a pure function of the seed."""
        learned = tasks.load(task)(processor, labels, architecture.context, options)
        shaped = learned.shaped(architecture)
        return cls(build(shaped, generator(seed, "init")), shaped, learned)

    def for_task(
        self,
        task: str,
        seed: int,
        labels: Sequence[str] = (),
        options: Mapping[str, Any] = MappingProxyType({}),
        *,
        fresh: bool = False,
    ) -> Self:
        """This model with another task: its own head where that fits, else a new one with first weights.

        `fresh` gives a new one in any case; `tied` output weights stay the embedding's.

        Raises:
            UserError: E313, its head was trained for other labels, and these have names.
        """
        learned = tasks.load(task)(self.processor, labels, self.context, options)
        architecture = learned.shaped(contest.alone(self.architecture))
        taught = self.task.labelled and self.task_name == task and not unnamed(self.task.labels)
        if taught and not fresh and tuple(labels) != self.task.labels:
            raise UserError("E313", ours=", ".join(self.task.labels[:8]), theirs=", ".join(labels[:8]))
        net = self.net
        if fresh or architecture != self.architecture:
            net = build(architecture, generator(seed, "head"))
            net.adopt(self.net)
            inherit(net.head, self.net.head)
        made = type(self)(net, architecture, learned)
        made.taught_chat, made.ways = self.taught_chat, self.ways
        made.new = self.new if net is self.net else (*self.new, "head")
        return made

    def grown(self, processor: Any, seed: int) -> "Model":
        """This model with a tokenizer that has more tokens than its own; their vectors are first weights. Or for
        pictures of another size, with places between its own.

        Raises:
            UserError: E350, it cannot see pictures of that size.
        """
        if processor.sizes != self.processor.sizes:
            return self._seeing(processor)
        if processor.vocab_size <= self.processor.vocab_size:
            return self
        architecture = self.architecture.with_vocabulary(max(processor.vocab_size, self.architecture.tokens.vocab))
        net = adapt.apply(build(architecture, generator(seed, "vocabulary")), staying(self.net).get("adapters", ()), 0)
        state = net.state_dict()
        for name, tensor in self.net.state_dict().items():
            state[name][tuple(map(slice, tensor.shape))] = tensor
        net.load_state_dict(state)
        made = Model(net, architecture, type(self.task)(processor, self.task.labels, self.context, self.task.chosen))
        made.taught_chat, made.ways = self.taught_chat, self.ways
        made.new = ("embed.tokens",)
        return made

    def _seeing(self, processor: Any) -> "Model":
        architecture = self.architecture.seeing(processor.sizes)
        net, seen = build(architecture, generator(0, "size")), architecture.embed
        net, state = adapt.apply(net, staying(self.net).get("adapters", ()), 0), dict(self.net.state_dict())
        for name in PLACES if isinstance(seen, PatchesConfig) else ():
            if name in state:
                state[name] = resampled(state[name], seen.tokens, seen)  # type: ignore[union-attr,arg-type]
        net.load_state_dict(state)
        learned = type(self.task)(processor, self.task.labels, architecture.context, self.task.chosen)
        made = Model(net, architecture, learned)
        made.new = self.new
        return made

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str = "cpu") -> Self:
        """Load a model onto a device: its folder, a run's folder or name, or a recipe that has run.

        Raises:
            UserError: E302 damaged, E304 no model there, E308 another kind of model or weights that do not fit, E325
                pickled weights, E327 code in the folder, E328 a tokenizer of another model.
        """
        from danlu import kept
        from danlu.runs import model_folder

        folder = model_folder(path)
        if (folder / peft.CONFIG).exists() and not (folder / CONFIG).exists():
            return kept.opened(cls, folder).to(device).eval()
        return read(cls, folder).to(device).eval()

    def save_pretrained(self, folder: str | Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write the folder that transformers, vLLM and danlu open; `weights` (fp32, merged) stand for its own."""
        write(self, Path(folder), weights)


def _choices(given: Sequence[Any]) -> bool:
    """Whether these are candidates to choose from."""
    return len(given) > 1 and all(isinstance(each, str) and each.strip() for each in given)
