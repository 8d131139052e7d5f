"""What a user can get wrong, said so that they can mend it: code, what, where, evidence, fix.

The family of a code is its first digit, and decides the exit code:
E1 recipe or usage, E2 data, E3 model or checkpoint, E4 disk or memory, E5 diverged, E6 server usage.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from danlu import messages

EXIT_BUG = 1
EXIT_INTERRUPTED = 75
_KEY = re.compile(r"\bdata\.(?=[a-z{])")
_EXITS = {"1": 2, "2": 3, "3": 4, "4": 5, "5": 6, "6": 2}


class UserError(Exception):
    """A problem that the user can mend.

    `code` names the entry [errors.CODE] of the message catalogue; `fields` fill its sentences;
    `where` is a place ("recipe.toml:7:1"); `evidence` shows the user's own rows, one line each.
    """

    def __init__(self, code: str, /, *, where: str = "", evidence: Sequence[str] = (), **fields: Any):
        super().__init__(code)  # all else is of the instance: a copy from another process is whole
        self.code, self.where, self.evidence, self.fields = code, where, tuple(evidence), fields

    @property
    def exit(self) -> int:
        return _EXITS[self.code[1]]

    section = "data"  # of a recipe, whose keys say how rows are read

    def speak_of(self, section: str) -> None:
        """Name the keys of another section in the place of those of [data]."""
        self.section = section

    @property
    def what(self) -> str:
        """The problem in one sentence."""
        return self._said("what")

    def _said(self, part: str) -> str:
        """A sentence of the catalogue, "" where there is none."""
        said = str(messages.find(f"errors.{self.code}.{part}") or "")
        if self.section != "data":
            said = _KEY.sub(rf"{self.section}.", said.replace("data.path", f"{self.section}.data"))
        return said.format(**{"where": self.where, **self.fields})

    def render(self) -> str:
        """The problem as it is printed: one line first, the evidence and the fix below it."""
        title, fix = messages.text("problem.error"), messages.text("problem.fix")
        lines = [f"{title}[{self.code}]: {self.what}"]
        lines += [f"  --> {self.where}"] * bool(self.where)
        lines += [f"  {row}" for row in self.evidence]
        if said := self._said("fix"):
            lines.append(f"  {fix}  {said}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class Problems(UserError):
    """Several problems found together, all printed at once."""

    def __init__(self, problems: Iterable[UserError]):
        self.problems = list(problems)
        super().__init__(self.problems[0].code)
        self.args = (self.problems,)

    def speak_of(self, section: str) -> None:
        for problem in self.problems:
            problem.speak_of(section)

    def render(self) -> str:
        return "\n".join(problem.render() for problem in self.problems)


def raise_all(problems: Sequence[UserError]) -> None:
    """Raise nothing, the one problem, or all of them together."""
    if problems:
        raise problems[0] if len(problems) == 1 else Problems(problems)
