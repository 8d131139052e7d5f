"""Run the programs that stand in the pages, and write below each what it prints.

A page in docs/en holds ```python blocks; those of one page run as one program, from top to bottom. Its Chinese twin
holds the same blocks at the same places. `pages()` is {path: text}; a test holds the repository equal to it.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
LANGUAGES = ("en", "zh")
FOLDER = Path("explanation/errata")
INDEX = "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.DOTALL | re.MULTILINE)
ITEM = re.compile(r"^## (.+)\n\n\*\*(.+?)[.。]\*\*", re.MULTILINE)  # what is said, and the verdict
TABLE = "<!-- the table below is written by docs/run.py -->\n"
NEXT = "\x1e"  # stands between what two blocks print


def pages() -> dict[Path, str]:
    """Every page with programs, and the index, in every language."""
    made: dict[Path, str] = {}
    for english in sorted((DOCS / "en" / FOLDER).glob("[0-9]*.md")):
        made |= written(english)
    return made | indexes()


def written(english: Path) -> dict[Path, str]:
    """One page, in every language."""
    programs = blocks(english.read_text("utf-8"))
    printed, made = run(programs), {}
    for language in LANGUAGES:
        path = DOCS / language / FOLDER / english.name
        made[path] = filled(path.read_text("utf-8"), programs, printed)
    return made


def indexes() -> dict[Path, str]:
    """The index in every language."""
    made: dict[Path, str] = {}
    for language in LANGUAGES:
        path = DOCS / language / FOLDER / INDEX
        made[path] = indexed(path.read_text("utf-8"), sorted(path.parent.glob("[0-9]*.md")))
    return made


def blocks(text: str) -> list[str]:
    """The programs of a page, from top to bottom."""
    return [match[1] for match in BLOCK.finditer(text)]


def run(programs: list[str]) -> list[str]:
    """What each prints; they share their names, as if they were typed one after the other.

    Raises:
        RuntimeError: one of them fails.
    """
    program = f"\nprint({NEXT!r}, end='')\n".join(programs)
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # sums in one order, whatever the machine
    command = [sys.executable, "-W", "error", "-"]
    done = subprocess.run(command, input=program, capture_output=True, text=True, env=alone)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [re.sub(r" +$", "", printed, flags=re.MULTILINE) for printed in done.stdout.split(NEXT)]


def filled(text: str, programs: list[str], printed: list[str]) -> str:
    """The page with these programs in its blocks, each followed by what it prints.

    Raises:
        ValueError: the page has more or fewer blocks.
    """
    pairs = iter(zip(programs, printed, strict=True))
    if (count := len(blocks(text))) != len(programs):
        raise ValueError(f"{count} blocks for {len(programs)} programs")

    def block(_: re.Match[str]) -> str:
        program, output = next(pairs)
        return f"```python\n{program}```\n" + (f"\n```text\n{output}```\n" if output else "")

    return BLOCK.sub(block, text)


def indexed(text: str, others: list[Path]) -> str:
    """The index with a line for each item of the other pages."""
    head, found, _ = text.partition(TABLE)
    if not found:
        raise ValueError(f"the index lacks the line {TABLE!r}")
    return head + TABLE + "\n".join(line for path in others for line in rows(path)) + "\n"


def rows(path: Path) -> Iterator[str]:
    """One table for a page: a link to each item, and the verdict."""
    text = path.read_text("utf-8")
    yield from ("", f"**[{text.splitlines()[0].lstrip('# ')}]({path.name})**", "", "| § | | |", "|---|---|---|")
    for title, verdict in ITEM.findall(text):
        section, _, claim = title.partition(" ")
        yield f"| {section} | [{claim}]({path.name}#{anchor(title)}) | {verdict} |"


def anchor(title: str) -> str:
    """The address that a heading gets on the repository's page."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, "utf-8")
        print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
