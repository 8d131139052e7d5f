"""What `danlu data` shows of a prepared folder: the funnel, rows before and after, copies side by side."""

import difflib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from danlu import files, messages

_CLUSTERS, _MEMBERS = 5, 3
_CHARACTERS = 500  # of a text that is shown
_SHADES = ("on grey23", "on grey37")


def render(prepared: Path, encoded: Path | None = None) -> Iterator[RenderableType]:
    """Everything there is to show of a prepare folder; rows as tokens too where there is an encode folder."""
    yield funnel(files.read_json(prepared / "funnel.json"))
    processor = _processor(encoded)
    for example in files.read_json(prepared / "examples.json"):
        yield _example(example, processor)
    with open(prepared / "clusters.jsonl", encoding="utf-8") as lines:
        for line in islice(lines, _CLUSTERS):
            yield _cluster(json.loads(line)["members"])


def contents(prepared: Path) -> dict[str, Any]:
    """The same as plain data, complete: funnel, examples, clusters."""
    with open(prepared / "clusters.jsonl", encoding="utf-8") as lines:
        clusters = [json.loads(line) for line in lines]
    named = {name: files.read_json(prepared / f"{name}.json") for name in ("funnel", "examples")}
    return named | {"clusters": clusters}


def funnel(counts: dict[str, Any]) -> Table:
    """Rows read, taken by each step, and left; then the splits."""
    table = Table(title=messages.text("data.view.funnel", size=f"{counts['bytes'] / 1e6:.2f} MB"), title_justify="left")
    table.add_column(messages.text("data.view.step"))
    for name in ("dropped", "kept"):
        table.add_column(messages.text(f"data.view.{name}"), justify="right")
    table.add_row(messages.text("data.step.read"), "", f"{counts['read']:,}")
    for step in counts["steps"]:
        table.add_row(messages.text(f"data.step.{step['name']}"), f"{step['dropped']:,}", f"{step['kept']:,}")
    table.add_section()
    for name, rows in counts["splits"].items():
        table.add_row(messages.text(f"data.view.{name}"), "", f"{rows:,}")
    return table


def marked(text: str, other: str, style: str) -> Text:
    """`text` with the characters that `other` has not, or has elsewhere, marked."""
    shown = Text(_visible(text))
    matcher = difflib.SequenceMatcher(None, _visible(other), _visible(text), autojunk=False)
    for tag, _, _, start, end in matcher.get_opcodes():
        if tag in ("insert", "replace"):
            shown.stylize(style, start, end)
    return shown


def _example(example: dict[str, str], processor: Any) -> Panel:
    before, after = example["before"][:_CHARACTERS], example["after"][:_CHARACTERS]
    parts: list[RenderableType] = []
    if before != after:
        parts += [Text(messages.text("data.view.before"), "bold"), marked(before, after, "red reverse")]
    parts += [Text(messages.text("data.view.after"), "bold"), marked(after, before, "green reverse")]
    if processor is not None:
        parts += [Text(messages.text("data.view.tokens"), "bold"), _tokens(processor, after)]
    return Panel(Group(*parts), title=_title(example), title_align="left")


def _tokens(processor: Any, text: str) -> Text:
    """The tokens of a text, told apart by their shade."""
    shown = Text()
    for number, token in enumerate(processor.show(processor.encode(text))):
        shown.append(_visible(token), _SHADES[number % 2])
    return shown


def _cluster(members: list[dict[str, Any]]) -> Group:
    """The row that stays and some of its copies, differing characters marked."""
    first, *copies = members
    kept = first["text"][:_CHARACTERS]
    panels = [Panel(Text(_visible(kept)), title=_title(first), title_align="left")]
    for copy in copies[: _MEMBERS - 1]:
        text = marked(copy["text"][:_CHARACTERS], kept, "yellow reverse")
        panels.append(Panel(text, title=_title(copy), title_align="left", subtitle=_likeness(copy["jaccard"])))
    beside = Table.grid(expand=True)
    for _ in panels:
        beside.add_column(ratio=1)
    beside.add_row(*panels)
    return Group(Text(messages.text("data.view.cluster", n=len(members)), "bold"), beside)


def _title(row: dict[str, Any]) -> Text:
    return Text(_visible(row["source"]))


def _likeness(jaccard: float | None) -> Text:
    return Text("" if jaccard is None else messages.text("data.view.alike", share=f"{jaccard:.0%}"))


def _visible(text: str) -> str:
    """Text that cannot steer the terminal: control characters become signs."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def _processor(encoded: Path | None) -> Any:
    if encoded is None or not (encoded / "tokenizer.json").exists():  # a table has no tokens
        return None
    from danlu.modalities.text import Text as Processor

    return Processor.load(encoded)
