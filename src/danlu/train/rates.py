"""Which parameters learn how fast, and from when on, so that what a base knows is not washed out at once.

Layer-wise decay and gradual unfreezing: Howard & Ruder 2018 (1801.06146), sections 3.2 and 3.3, whose factor from layer
to layer is 1 / 2.6. The layers are the embedding (0), the blocks, and last the final norm with the head.
"""

import re
from collections.abc import Callable, Iterable

from torch import Tensor

from danlu.config import Train
from danlu.errors import UserError
from danlu.train.optim import Named, Optimizer

Make = Callable[[Named], Optimizer]


_BLOCK = re.compile(r"\b(?<!head\.core\.)blocks\.(\d+)\.")  # those of a decoder in the head are part of that


def layer(name: str, blocks: int) -> int:
    """The layer of a parameter: 0, or 1 to `blocks`, or blocks + 1."""
    if number := _BLOCK.search(name):
        return int(number[1]) + 1
    return 0 if "embed." in name else blocks + 1


def factor(name: str, train: Train, blocks: int) -> float:
    """Share of the learning rate at which a parameter learns."""
    share = train.layer_decay ** (blocks + 1 - layer(name, blocks))
    for part, rate in train.rates.items():
        share *= rate if _within(part, name) else 1.0
    return share


def _within(part: str, name: str) -> bool:
    """Whether `part` is a run of whole words of a dotted name."""
    return f".{part}." in f".{name}."


def starts(names: Iterable[str], train: Train, steps: int) -> dict[str, int]:
    """The update from which each parameter learns: the last layer that has any at once, then one after another."""
    blocks = _blocks(names)
    layers = sorted({layer(name, blocks) for name in names}, reverse=True)
    each = train.unfreeze * steps / len(layers) if layers else 0.0
    return {name: round(layers.index(layer(name, blocks)) * each) for name in names}


def _blocks(names: Iterable[str]) -> int:
    return max((int(each[1]) + 1 for name in names if (each := _BLOCK.search(name))), default=0)


def optimizer(params: Named, train: Train, steps: int, make: Make) -> "Optimizer | Paced":
    """One optimizer where all learn alike; else one for all that share a factor and a start.

    Raises:
        UserError: E138, a key of `rates` is part of no name.
    """
    for part in train.rates:
        if not any(_within(part, name) for name in params):
            heads = sorted({name.split(".")[0] for name in params})
            raise UserError(
                "E138", part=part, some=", ".join([*heads, *sorted({n.rpartition(".")[2] for n in params})])
            )
    begin, blocks = starts(list(params), train, steps), _blocks(params)
    groups: dict[tuple[float, int], Named] = {}
    for name, p in params.items():
        groups.setdefault((factor(name, train, blocks), begin[name]), {})[name] = p
    if set(groups) <= {(1.0, 0)}:
        return make(params)
    return Paced([(share, start, make(named)) for (share, start), named in groups.items()])


class Paced:
    """Optimizers of groups, each at its share of the rate, asleep until its start; to the loop they are one."""

    def __init__(self, groups: list[tuple[float, int, Optimizer]]) -> None:
        self.groups, self._count = groups, 0
        self.state: Named = {name: tensor for *_, each in groups for name, tensor in each.state.items()}

    @property
    def step_count(self) -> int:
        """Updates so far, of those that never slept."""
        return self._count

    @step_count.setter
    def step_count(self, count: int) -> None:
        self._count = count
        for _, start, each in self.groups:
            each.step_count = max(0, count - start)

    @property
    def names(self) -> list[str]:
        """The parameters that the next update changes."""
        return [name for _, start, each in self.groups if start <= self._count for name in each.names]

    def restore(self, state: Named) -> None:
        for *_, each in self.groups:
            each.restore(state)

    def step(self, gradients: dict[str, Tensor], lr: float) -> None:
        """One update of those that are awake."""
        for share, start, each in self.groups:
            if start <= self._count:
                each.step({name: gradients[name] for name in each.names}, lr * share)
        self._count += 1


def awake(train: Train) -> Train:
    """The settings as if all learned from the first step on: what a step costs when it costs most."""
    return train.model_copy(update={"unfreeze": 0.0})
