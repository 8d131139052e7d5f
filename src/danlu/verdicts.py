"""What models that judge rows got right and wrong, for a page and for a terminal: figures, confusion, flipped rows."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from danlu.messages import find, text

_LONGEST = 300  # characters of a row
_CLASSES = 30  # of a confusion matrix that is shown


def shown(value: Any) -> str:
    """Text of users and models made safe and visible: escaped, control characters as symbols."""
    clean = str(value).encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n")
    visible = "".join(chr(0x2400 + ord(each)) if ord(each) < 32 and each not in "\n\t" else each for each in clean)
    return html.escape(visible)


def figures(found: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """A table: a line for each metric, a column for each model, and below each figure its interval."""
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    rows = []
    for name in names:
        cells = (_cell(each.get(name), intervals.get(model, {}).get(name)) for model, each in found.items())
        label = text(f"metrics.{name}") if find(f"metrics.{name}") else name
        rows.append(f'<tr><th scope="row">{shown(label)}</th>{"".join(cells)}</tr>')
    return _table(["", *found], rows)


def _cell(value: float | None, ends: Sequence[float] | None) -> str:
    if value is None:
        return "<td>—</td>"
    return f"<td>{value:.4g}{f'<br><small>{ends[0]:.4g} – {ends[1]:.4g}</small>' if ends else ''}</td>"


def _table(heads: Sequence[str], rows: Sequence[str], style: str = "") -> str:
    head = "".join(f'<th scope="col">{shown(each)}</th>' for each in heads)
    opening = f'<div class="scroll"><table class="{style}"><thead><tr>{head}</tr></thead><tbody>'
    return f"{opening}{''.join(rows)}</tbody></table></div>"


def confusion(found: Mapping[str, Any]) -> Iterator[str]:
    """Rows of the true label, columns of the predicted one; darker where more."""
    if not found or len(found["labels"]) > _CLASSES:
        return
    yield f'<h2>{text("verdicts.confusion")}</h2><p class="about">{text("verdicts.confusion_about")}</p>'
    rows = []
    for label, counts in zip(found["labels"], found["matrix"], strict=True):
        most = max(1, sum(counts))
        cells = (f'<td style="background:rgba(200,90,20,{0.6 * count / most:.2f})">{count:,}</td>' for count in counts)
        rows.append(f'<tr><th scope="row">{shown(label)}</th>{"".join(cells)}</tr>')
    yield _table(["", *found["labels"]], rows)


def comparison(found: Mapping[str, Any], flips: Mapping[str, Any]) -> Iterator[str]:
    """McNemar's test of two models, and the rows that one got right and the other wrong."""
    yield f"<h2>{text('verdicts.comparison')}</h2>"
    yield f'<p class="about">{shown(told(found))}</p>'
    heads = [text("verdicts.given"), text("verdicts.wanted"), _name(flips["first"]), _name(flips["second"])]
    rows = []
    for flip in flips["flips"]:
        cells = (shown(_cut(flip[name])) for name in ("given", "wanted", "first", "second"))
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    if rows:
        yield _table(heads, rows, "words")


def told(found: Mapping[str, Any]) -> str:
    """McNemar's test in a sentence."""
    test = text("verdicts.exact" if found["exact"] else "verdicts.chi_square")
    return text(
        "verdicts.told", first=_name(found["first"]), second=_name(found["second"]), only_first=found["only_first"],
        only_second=found["only_second"], rows=f"{found['rows']:,}", p=f"{found['p']:.3g}", test=test,
    )  # fmt: skip


def lines(found: Mapping[str, Any], flips: Mapping[str, Any]) -> Iterator[str]:
    """The same for a terminal."""
    yield ""
    yield told(found)
    first, second = _name(flips["first"]), _name(flips["second"])
    for flip in flips["flips"]:
        given = " ".join(_cut(flip["given"], 100).split())
        yield f"  {given}"
        yield f"    {text('verdicts.wanted')}: {flip['wanted']} · {first}: {flip['first']} · {second}: {flip['second']}"


def _name(role: str) -> str:
    """A model as the report calls it."""
    known = find(f"report.{role}") if role.isidentifier() else None
    return str(known) if isinstance(known, str) else role


def _cut(given: str, longest: int = _LONGEST) -> str:
    return given if len(given) <= longest else given[:longest] + " …"


def worst(errors: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What was most wrong: pictures as a contact sheet, with what each is and what was said; other rows as a table."""
    if not errors:
        return
    yield f'<h2>{text("verdicts.worst")}</h2><p class="about">{text("verdicts.worst_about")}</p>'
    if "image" in errors[0]:
        yield f'<div class="sheet">{"".join(map(_frame, errors))}</div>'
        return
    names = ("given", "wanted", "found")
    rows = ["".join(f"<td>{shown(_cut(str(each[name])))}</td>" for name in names) for each in errors]
    yield _table([text(f"verdicts.{name}") for name in names], [f"<tr>{row}</tr>" for row in rows], "words")


def _frame(error: Mapping[str, Any]) -> str:
    said = " → ".join(shown(each) for each in (error["wanted"], error["found"]) if each)
    image = f'<img alt="" src="data:image/png;base64,{shown(error["image"])}">'
    caption = f"<figcaption>{said} · {error['weight']:.2f}</figcaption>"
    return f'<figure title="{shown(error["given"])}">{image}{caption}</figure>'
