"""The contract of a modality: raw value -> example -> padded batch -> (B, T, D), and back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    import torch

Example = dict[str, Any]
Batch = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Word:
    """A piece as a reader takes it, and in which places of an example it stands; `fixed`: a control token."""

    text: str
    places: tuple[int, ...]
    fixed: bool = False


class Modality(ABC):
    """A processor: fitted once on the training rows, saved with the model, the same for every task."""

    column: ClassVar[str]  # of the rows: what it is fitted on
    file: ClassVar[str]  # what it is saved as, in a folder
    counted: ClassVar[str] = "tokens"  # what a step takes so and so many of: [counted] of the messages
    fitted_by: ClassVar[tuple[str, ...]] = ()  # the options of tasks that `fit` and `adjusted` take

    def with_control(self, names: Sequence[str]) -> Self:
        """With control tokens that a task marks its rows by; only texts have such."""
        return self

    def length(self, context: int) -> int:
        """Places that a row takes at most: those of the context, unless all rows take as many."""
        return context

    def adjusted(self, **options: Any) -> Self:
        """A fitted one as a task's options would have it, where they may say so afterwards."""
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """What a network must know of the rows, beside its vocabulary and the context."""
        return {}

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
    def words(self, example: Example) -> list[Word]:
        """What an example says, piece by piece as a reader takes it."""

    @abstractmethod
    def blanks(self, example: Example) -> list[Example]:
        """The example with nothing said in any of its places: what an explanation compares it with, on average."""

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
