"""What was checked of a recipe, with the figure, the limit, and the verdict; importing it loads nothing heavy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from danlu.errors import UserError
from danlu.messages import text

Shown = tuple[str, bool]  # a token as a reader sees it, and whether it is learned


@dataclass(frozen=True)
class Check:
    """One claim about one training: it holds where `figure` is at most `limit` (no number never is)."""

    name: str  # of the sentence [proof.check] NAME
    figure: float
    limit: float
    evidence: str = ""
    rows: Sequence[Sequence[Shown]] = ()  # rows shown token by token

    @property
    def passed(self) -> bool:
        return self.figure <= self.limit

    def table(self) -> dict[str, Any]:
        """The check as JSON data."""
        rows = [[{"token": token, "learned": learned} for token, learned in row] for row in self.rows]
        figure = self.figure if math.isfinite(self.figure) else None  # JSON has no other numbers
        plain = {"check": self.name, "figure": figure, "limit": self.limit, "passed": self.passed}
        return plain | ({"evidence": self.evidence} if self.evidence else {}) | ({"rows": rows} if rows else {})

    def lines(self) -> list[str]:
        """The check as it is printed."""
        verdict = text("proof.passed" if self.passed else "proof.failed")
        claim = text(f"proof.check.{self.name}")
        measured = text("proof.measured", figure=f"{self.figure:.2g}", limit=f"{self.limit:g}")
        shown = [f"       {_marked(row)}" for row in self.rows]
        return [f"  {verdict} {claim}: {measured}", *([f"       {self.evidence}"] * bool(self.evidence)), *shown]


def _marked(row: Sequence[Shown]) -> str:
    """Tokens one by one, the learned ones between 【 and 】."""
    made, inside = "", False
    for token, learned in row:
        opens = "】" if inside and not learned else "【" if learned and not inside else "·" if made else ""
        made, inside = made + opens + token.replace("\n", "⏎"), learned
    return made + "】" * inside


@dataclass
class Certificate:
    """All checks of a recipe, by the training that they are about."""

    recipe: str
    checks: dict[str, list[Check]] = field(default_factory=dict)  # stage -> its checks
    twins: dict[str, str] = field(default_factory=dict)  # stage -> what its twin is
    left_out: list[str] = field(default_factory=list)  # checks that were not made
    seconds: float = 0.0

    def failed(self) -> list[str]:
        """ "stage.check" of what does not hold."""
        every = ((stage, check) for stage, checks in self.checks.items() for check in checks)
        return [f"{stage}.{check.name}" for stage, check in every if not check.passed]

    def table(self) -> dict[str, Any]:
        """The certificate as JSON data."""
        stages = {
            stage: {"twin": self.twins[stage], "checks": [check.table() for check in checks]}
            for stage, checks in self.checks.items()
        }
        made = {"passed": not self.failed(), "seconds": round(self.seconds, 1), "left_out": self.left_out}
        return {"recipe": self.recipe, **made, "stages": stages}

    def render(self) -> str:
        """The certificate as it is printed."""
        lines = [text("proof.head", recipe=self.recipe, seconds=f"{self.seconds:.0f}")]
        for stage, checks in self.checks.items():
            lines += [f"{stage}: {self.twins[stage]}", *(line for check in checks for line in check.lines())]
        return "\n".join([*lines, *(text(f"proof.left_out.{name}") for name in self.left_out)])

    def error(self) -> UserError | None:
        """E520 where a check does not hold."""
        failed, count = self.failed(), sum(map(len, self.checks.values()))
        return UserError("E520", failed=len(failed), count=count, names=", ".join(failed)) if failed else None
