"""What all layers share: they can name their parameters, and remember what they gave out last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from danlu.scratch.tensor import Tensor


class Parameter(Tensor):
    """A tensor that is learned."""


class Module:
    """A layer, or a layer of layers. `output` is what the last call gave; after `backward` its `grad` can be read."""

    training = True
    output: Tensor
    forward: Callable[..., Tensor]  # what the layer computes; each has its own

    def __call__(self, *inputs: Any) -> Tensor:
        self.output = self.forward(*inputs)
        return self.output

    def modules(self, name: str = "") -> Iterator[tuple[str, Module]]:
        """("", itself), then ("attention", ...), ("attention.q", ...), and so on."""
        yield name, self
        for key, value in vars(self).items():
            inner = {key: value} if isinstance(value, Module) else {}
            if isinstance(value, list):
                inner = {f"{key}.{i}": layer for i, layer in enumerate(value)}
            for part, layer in inner.items():
                yield from layer.modules(f"{name}.{part}".lstrip("."))

    def parameters(self) -> dict[str, Parameter]:
        """All that is learned, by name: "attention.q.weight"."""
        return {
            f"{name}.{key}".lstrip("."): value
            for name, layer in self.modules()
            for key, value in vars(layer).items()
            if isinstance(value, Parameter)
        }

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Copy weights in; raises ValueError where names or shapes are not ours."""
        own = self.parameters()
        if strange := {n for n in own.keys() | weights.keys() if n not in own or n not in weights}:
            raise ValueError(f"these names are on one side only: {', '.join(sorted(strange))}")
        for name, parameter in own.items():
            if parameter.shape != weights[name].shape:
                raise ValueError(f"{name} is {parameter.shape} here and {weights[name].shape} there")
            parameter.data = np.array(weights[name])

    def cast(self, dtype: type) -> None:
        """Keep the parameters in another precision: np.float32 computes twice as fast as np.float64."""
        for parameter in self.parameters().values():
            parameter.data = parameter.data.astype(dtype)

    def train(self, mode: bool = True) -> None:
        """Learning (dropout drops) or, with False, being used."""
        for _, layer in self.modules():
            layer.training = mode
