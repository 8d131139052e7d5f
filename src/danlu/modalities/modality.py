"""The contract of a modality: raw value -> example -> padded batch -> (B, T, D), and back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    import torch

Example = dict[str, Any]
Batch = dict[str, "torch.Tensor"]


class Modality(ABC):
    """A processor: fitted once on the training rows, saved with the model, the same for every task."""

    column: ClassVar[str]  # of the rows: what it is fitted on
    file: ClassVar[str]  # what it is saved as, in a folder

    def with_control(self, names: Sequence[str]) -> Self:
        """With control tokens that a task marks its rows by; only texts have such."""
        return self

    def length(self, context: int) -> int:
        """Places that a row takes at most: those of the context, unless all rows take as many."""
        return context

    @classmethod
    @abstractmethod
    def fit(cls, values: Iterable[Any], **options: Any) -> Self:
        """Learn what the modality needs from the training values: a vocabulary, a mean, nothing."""

    @abstractmethod
    def encode(self, value: Any) -> Any:
        """The numbers that stand for one raw value."""

    @abstractmethod
    def decode(self, encoded: Any) -> Any:
        """The raw value that numbers stand for."""

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Batch:
        """One batch of several examples, padded to the longest."""

    @abstractmethod
    def embed(self, dim: int) -> "torch.nn.Module":
        """A new, untrained module from a batch to (B, T, dim)."""

    @abstractmethod
    def save(self, folder: Path, *, typed: bool = False) -> None:
        """Write everything `load` needs into `folder`; `typed`: the model tells the first text from the second."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """The modality saved in `folder`."""
