"""An explanation that shows itself: coloured words in a terminal, in a notebook, and as a page of its own."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import charts, files, page, pixels
from danlu.explain import Explanation
from danlu.explain.pictures import drawn
from danlu.messages import text
from danlu.verdicts import shown

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from danlu.api.pretrained import Pretrained
    from danlu.tasks.task import Row

_FOR, _AGAINST = (200, 90, 20), (31, 111, 139)  # what speaks for an answer, and against it
_FAINT = 0.04  # of the highest score: below it, no colour
_ROWS = 12  # of the table in a terminal
_RESTS = 4  # words that stand beside a token that is written
_STYLE = (
    ".said{font-size:19px;line-height:2;overflow-wrap:anywhere;white-space:pre-wrap}.said span{border-radius:4px;"
    "padding:2px 1px}.said i{opacity:.45;font-style:normal;font-size:13px}svg path{fill:none;stroke-width:2}"
    "svg .c1{stroke:#c2410c}svg .c2{stroke:#1f6f8b}svg .c3{stroke:#888;stroke-dasharray:4 4}svg rect{stroke-width:2}"
    "svg rect.c1{fill:#c2410c}svg rect.c2{fill:#1f6f8b}svg rect.c3{fill:#888}svg text{fill:currentColor}"
)


class Explained(Explanation):
    """What `Explanation` holds; `show()`, and as it is in a notebook."""

    @classmethod
    def of(cls, found: Explanation) -> "Explained":
        return cls(**vars(found))

    def show(self) -> None:
        """Print it."""
        from rich.console import Console

        Console(file=sys.stdout, markup=False, emoji=False, highlight=False).print(self.rendered())

    def save(self, path: str | Path) -> None:
        """Write it as a page that stands alone; of a picture, under a name in .png, what was seen in it."""
        if self.seen is not None and str(path).endswith(".png"):
            files.write_bytes(Path(path), self.picture)
            return
        style = (Path(page.__file__).parent / "report.css").read_text("utf-8")
        title = text("explain.title", name=self.name)
        body = f"<h1>{shown(title)}</h1>" + "\n".join(self._parts())
        files.write_text(Path(path), page.page(title, body, f"{style}\n{_STYLE}\n"))

    @property
    def picture(self) -> bytes:
        """A PNG: the picture, and beside it what speaks for the answer in orange, against it in blue."""
        return pixels.png(drawn(self))

    # --- in words ---

    @property
    def head(self) -> str:
        """What is explained, with its figures."""
        numbers = {"number": f"{self.number:.4g}", "blank": f"{self.blank:.4g}"}
        if self.share == self.number:
            return text("explain.number", **numbers)
        return text("explain.head", name=self.name, share=f"{self.share:.1%}", **numbers)

    @property
    def sums(self) -> str:
        """How far the words' parts account for the difference."""
        return text("explain.sums", gap=f"{self.gap:+.2g}", points=self.points)

    def _left(self) -> list[str]:
        return [text("explain.left", left_out=f"{self.left_out:,}")] if self.left_out else []

    def _faith(self) -> Iterator[str]:
        for name, area in self.faithfulness.items():
            yield text(f"explain.{'sooner' if area > 0 else 'later'}", method=_method(name), area=f"{abs(area):.3f}")

    @property
    def _named(self) -> str:
        return text("explain.word" if self.seen is None else "explain.region")

    def _ranked(self) -> list[int]:
        """The words by how much they do, the most first."""
        own = self.scores["gradients"]
        return sorted((at for at, word in enumerate(self.words) if not word.fixed), key=lambda at: -abs(own[at]))

    # --- in a terminal ---

    def rendered(self) -> "Group":
        """The words, coloured, and the figures below; for rich."""
        from rich.console import Group
        from rich.text import Text

        coloured = self._grid() if self.seen is not None else self._coloured()
        lines = [self.sums, *self._faith(), *([text("explain.attention")] if "attention" in self.scores else [])]
        heads = map(Text, [self.head, *self._left()])
        rested = [*map(Text, self._rests()), Text()] if self.each else []
        return Group(*heads, Text(), coloured, Text(), self._table(), Text(), *rested, *map(Text, lines))

    def _rests(self) -> Iterator[str]:
        """Of each token that is written the words that it rests on most."""
        yield text("explain.written")
        for name, _, parts in self.each:
            most = sorted((at for at, word in enumerate(self.words) if not word.fixed), key=lambda at: -parts[at])
            told = (f"{self.words[at].text.strip()} {parts[at]:+.2f}" for at in most[:_RESTS] if parts[at] > 0)
            yield _visible(f"  {name.strip()}  ←  {' · '.join(told) or '—'}")

    def _coloured(self) -> "Text":
        from rich.text import Text

        made, own = Text(), self.scores["gradients"]
        most = max(map(abs, own), default=0.0) or 1.0
        for word, score in zip(self.words, own, strict=True):
            bright = f"black on rgb({_shade(score, most)})" if abs(score) > _FAINT * most else ""
            style = "dim" if word.fixed else bright
            made.append(f" {word.text}" if word.fixed else _visible(word.text), style)
        return made

    def _grid(self) -> "Text":
        """The regions of a picture, row by row."""
        from rich.text import Text

        own = [score for score, word in zip(self.scores["gradients"], self.words, strict=True) if not word.fixed]
        most, made = max(map(abs, own), default=0.0) or 1.0, Text()
        for place, score in enumerate(own):
            made.append("  ", f"on rgb({_shade(score, most)})")
            made.append("" if (place + 1) % self.seen.across else "\n")
        return made

    def _table(self) -> "Table":
        from rich.table import Column, Table
        from rich.text import Text

        heads = [self._named, *(_method(name) for name in self.scores)]
        made = Table(*(Column(Text(each)) for each in heads), box=None, pad_edge=False)
        for at in self._ranked()[:_ROWS]:
            cells = (f"{each[at]:+.4f}" for each in self.scores.values())
            made.add_row(Text(_visible(self.words[at].text.strip())), *map(Text, cells))
        return made

    # --- in HTML ---

    def _repr_html_(self) -> str:
        return f"<style>{_STYLE}</style><div class='danlu'>{''.join(self._parts())}</div>"

    def _parts(self) -> Iterator[str]:
        yield f'<p class="lead">{shown(self.head)}</p>'
        yield "".join(f"<p>{shown(line)}</p>" for line in self._left())
        if self.seen is not None:
            yield f'<p><img alt="" src="data:image/png;base64,{pixels.written(self.picture)}"></p>'
        for name, scores in self.scores.items() if self.seen is None else ():
            yield f'<h2>{shown(_method(name))}</h2><p class="said">{"".join(self._spans(scores))}</p>'
        yield f'<p class="about">{shown(self.sums)}</p>'
        yield self._written() if self.each else ""
        yield f"<h2>{text('explain.deletion')}</h2><p class='about'>{text('explain.deletion_about')}</p>"
        series = [(_method(name), list(zip(map(float, self.gone), each, strict=True)), False)
                  for name, each in self.curves.items()]  # fmt: skip
        values = [value for each in self.curves.values() for value in each]
        ends, across = (min([0.0, *values]), max(values)), (0.0, float(self.gone[-1]))
        yield charts.lines(series, across, ends, x_label=text("explain.gone"), y_label=text("explain.share"))
        yield "".join(f"<p>{shown(line)}</p>" for line in self._faith())
        if "attention" in self.scores:
            yield f'<p class="about">{text("explain.attention")}</p>'
        yield self._rows()

    def _spans(self, scores: Any) -> Iterator[str]:
        most = max(map(abs, scores), default=0.0) or 1.0
        for word, score in zip(self.words, scores, strict=True):
            red, green, blue = _FOR if score > 0 else _AGAINST
            colour = f"rgba({red},{green},{blue},{0.75 * abs(score) / most:.2f})"
            spoken = f'<span style="background:{colour}" title="{score:+.4f}">{shown(word.text)}</span>'
            yield f"<i> {shown(word.text)}</i>" if word.fixed else spoken

    def _written(self) -> str:
        """A row for each token that is written, a column for each word that is read."""
        free = [at for at, word in enumerate(self.words) if not word.fixed]
        most = max((abs(parts[at]) for _, _, parts in self.each for at in free), default=0.0) or 1.0
        heads = "".join(f"<th>{shown(self.words[at].text.strip())}</th>" for at in free)
        rows = "".join(f"<tr><th>{shown(name)}</th>{''.join(_cell(parts[at], most) for at in free)}</tr>"
                       for name, _, parts in self.each)  # fmt: skip
        table = f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        return f'<h2>{shown(text("explain.written"))}</h2><div class="scroll">{table}</div>'

    def _rows(self) -> str:
        heads = "".join(f"<th>{shown(each)}</th>" for each in (self._named, *map(_method, self.scores)))
        rows = (f"<tr><td>{shown(self.words[at].text.strip())}</td>"
                + "".join(f"<td>{each[at]:+.4f}</td>" for each in self.scores.values()) + "</tr>"
                for at in self._ranked())  # fmt: skip
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        return f'<div class="scroll">{table}</div>'


def asked(model: "Pretrained", row: Any) -> "Row":
    """The row that is explained: of a table, of a picture by its path, or of what `predict` takes.

    Raises:
        UserError: as of `predict`.
    """
    path = isinstance(row, str | Path) and "." in str(row)  # no bytes in base64 have a full stop
    if "record" in model.asks:
        return {"record": dict(row)} if isinstance(row, Mapping) else model.asked(str(row))
    return model.asked(str(row)) if "image" in model.asks and path else model._row(row)


def _method(name: str) -> str:
    return text(f"explain.method.{name}")


def _cell(score: float, most: float) -> str:
    return f'<td style="background:rgb({_shade(score, most) if score else "255,255,255"})">{score:+.2f}</td>'


def _shade(score: float, most: float) -> str:
    """The colour of a score, as light as it is small."""
    share, colour = abs(score) / most, _FOR if score > 0 else _AGAINST
    return ",".join(str(round(255 - (255 - part) * (0.15 + 0.6 * share))) for part in colour)


def _visible(said: str) -> str:
    """Control characters as symbols: a text must not steer the terminal."""
    return "".join(chr(0x2400 + ord(each)) if ord(each) < 32 and each != "\n" else each for each in said)
