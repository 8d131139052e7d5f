"""A text and the spans in it that have a type: given as such, or as words and their tags."""

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from danlu.data.shapes.value import Flaw, Row, kind, required, text
from danlu.metrics.entities import entities, is_tag

MARK = "spans"
COLUMNS = ("text", "spans")
OPTIONAL = ()
CLEAN = ("normalize", "drop_empty")
WORDS = ("tokens", "tags")  # in the place of these columns
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
_KEYS = (("start", "start_offset", "begin"), ("end", "end_offset", "stop"), ("type", "label", "entity_type", "entity"))

Span = tuple[int, int, str]  # begin and end in characters, type


def holds(row: Mapping[str, Any]) -> bool:
    """Whether a record has the columns in one of their two forms."""
    return set(COLUMNS) <= row.keys() or set(WORDS) <= row.keys()


def canonical(row: Mapping[str, Any]) -> Row:
    """The record as a text and its spans, in order.

    Raises:
        Flaw: tags, tag, span, span_outside, spans_overlap; or what a text raises.
    """
    if set(WORDS) <= row.keys():
        return _joined(row["tokens"], row["tags"])
    required(row, COLUMNS)
    whole = text(row["text"], "text")
    return {"text": whole, "spans": _apart([_trimmed(_span(each), whole) for each in _listed(row["spans"], "spans")])}


def plain(row: Row) -> str:
    """All text of the row, as one string."""
    return str(row["text"])


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    """The pieces between the edges of the spans are changed one by one, so that the spans stay where they belong."""
    made, places = moved(row["text"], change, {edge for start, end, _ in row["spans"] for edge in (start, end)})
    return {"text": made, "spans": [(places[start], places[end], named) for start, end, named in row["spans"]]}


def moved(whole: str, change: Callable[[str], str], edges: set[int]) -> tuple[str, dict[int, int]]:
    """The text with `change` applied between its edges, and where each of them is now."""
    cuts = sorted({0, len(whole), *edges})
    made, places = "", {0: 0}
    for start, end in itertools.pairwise(cuts):
        made += change(whole[start:end])
        places[end] = len(made)
    return made, places


def stored(row: Row) -> dict[str, str]:
    return {"text": row["text"], "spans": json.dumps(row["spans"], ensure_ascii=False)}


def loaded(row: Mapping[str, Any]) -> Row:
    spans = json.loads(row["spans"]) if isinstance(row["spans"], str) else row["spans"]
    return {"text": row["text"], "spans": [(start, end, named) for start, end, named in spans]}


# --- words and tags --------------------------------------------------------------------------------------


def _joined(words: Any, tags: Any) -> Row:
    words, tags = _listed(words, "tokens"), _listed(tags, "tags")
    if len(words) != len(tags):
        raise Flaw("tags", words=len(words), tags=len(tags))
    if wrong := [tag for tag in tags if not isinstance(tag, str) or not is_tag(tag)]:
        raise Flaw("tag", found=str(wrong[0]))
    whole, places = "", list[tuple[int, int]]()
    solid = all(len(word) <= 1 for word in words) and any(map(_UNSPACED.match, words))
    for word in words:
        whole += " " if whole and not solid and not _adjoin(whole[-1], word[:1]) else ""
        places.append((len(whole), len(whole) + len(text(word, "tokens"))))
        whole += word
    return {"text": whole, "spans": [(places[a][0], places[b - 1][1], named) for named, a, b in entities(tags)]}


def _adjoin(before: str, after: str) -> bool:
    """Whether two words stand together without a space: both are of a script that has none."""
    return bool(_UNSPACED.match(before) and _UNSPACED.match(after))


# --- spans -----------------------------------------------------------------------------------------------


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise Flaw("list", name=name, found=kind(value))
    return value


def _span(given: Any) -> Span:
    """A span as an object or as [start, end, type]."""
    parts = (
        [next((given[key] for key in keys if key in given), None) for keys in _KEYS]
        if isinstance(given, dict)
        else given
    )
    if not isinstance(parts, list | tuple) or len(parts) != 3:
        raise Flaw("span", found=json.dumps(given, ensure_ascii=False)[:60])
    start, end, named = parts
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in (start, end))
    if not whole or not isinstance(named, str) or not named.strip():
        raise Flaw("span", found=json.dumps(given, ensure_ascii=False)[:60])
    return start, end, named.strip()


def _trimmed(span: Span, whole: str) -> Span:
    """The span without spaces at its ends.

    Raises:
        Flaw: span_outside, it is not in the text, or holds nothing.
    """
    start, end, named = span
    inside = whole[start:end] if 0 <= start < end <= len(whole) else ""
    if not inside.strip():
        raise Flaw("span_outside", start=start, end=end, type=named, length=len(whole))
    return start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip()), named


def _apart(spans: Sequence[Span]) -> list[Span]:
    """In order; raises Flaw (spans_overlap) where two overlap: a word has one tag."""
    found = sorted(dict.fromkeys(spans))
    for (a, b, one), (c, d, other) in itertools.pairwise(found):
        if c < b:
            raise Flaw("spans_overlap", first=f"[{a}, {b}, {one}]", second=f"[{c}, {d}, {other}]")
    return found
