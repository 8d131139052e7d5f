"""What happens in a training, as the loop tells it."""

from dataclasses import dataclass, field
from typing import Any


class Halted(Exception):
    """Asked to stop inside a step or an evaluation: what it had done is dropped, and done again when resumed."""


@dataclass(frozen=True)
class Incident:
    """Something that went wrong and was dealt with: skipped, spike, rolled_back or split, and its figures."""

    kind: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stepped:
    """One optimizer step."""

    step: int
    loss: float
    lr: float
    norm: float
    tokens: int
    seconds: float
    incidents: tuple[Incident, ...] = ()
    waited: float = 0.0  # of these seconds, for the batches


@dataclass(frozen=True)
class Evaluated:
    """One look at the validation rows."""

    step: int
    metrics: dict[str, float]
    better: bool


Event = Stepped | Evaluated
