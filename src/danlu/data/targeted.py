"""Raw files that hold texts and what is to be written for them, translations or summaries: found by looking."""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from danlu.data import clues, starter
from danlu.data.shapes import Row
from danlu.data.sources import SourceFile

SUMMARIES = (
    ("document", "article", "body", "dialogue", "text", "content", "source", "正文", "文章", "内容"),
    ("summary", "highlights", "abstract", "headline", "subject", "摘要", "概要"),
)
TRANSLATIONS = (
    ("source", "src", "source_text", "原文", "源文"),
    ("target", "tgt", "target_text", "translation", "译文", "翻译"),
)
LANGUAGES = {
    "ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he", "hi", "hr",
    "hu", "id", "it", "ja", "ko", "lt", "lv", "ms", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sr",
    "sv", "ta", "th", "tr", "uk", "ur", "vi", "zh", "english", "german", "french", "spanish", "chinese",
    "japanese", "russian", "英文", "中文", "英语", "汉语", "日文", "德文", "法文",
}  # fmt: skip
_HAN, _LETTER = re.compile(r"[\u3400-\u9fff]"), re.compile(r"[^\W\d_]")
_MOSTLY = 0.9  # share of the rows of which a column's script is told


def look(source: SourceFile) -> starter.Found | None:
    """Pairs of texts in a file; None where there are none, or nothing says which is written for which."""
    for keys in clues.ways(source):
        found = clues.rows(source, keys)
        rows = clues.sample(found)
        task, columns = _columns(rows) if rows else ("", {})
        if task and keys.get("format", source.format) in ("csv", "tsv") and _is_row(columns, rows):
            keys = {**keys, "header": False}
            found, columns = clues.rows(source, keys), {"text": "1", "target": "2"}
            rows = clues.sample(found)
        if task:
            texts = (str(row[name]) for row in rows for name in columns.values())
            settings = starter.settings(texts, {"budget": '"10min"'})
            keys = {**keys, **clues.renaming(columns)}
            return starter.Found(task, keys, len(found), task, {}, settings)
    return None


def _columns(rows: Sequence[Row]) -> tuple[str, dict[str, str]]:
    """The task, and ours -> yours; "" where there is none."""
    values = {str(name): [row.get(name) for row in rows] for name in rows[0]}
    texts = [name for name, each in values.items() if clues.is_text(each)]
    for task, names in (("translation", TRANSLATIONS), ("summarization", SUMMARIES)):
        read, told = (clues.named(texts, known) for known in names)
        if read and told:
            return task, {"text": read, "target": told}
    codes = [name for name in texts if _code(name) in LANGUAGES]
    if len(codes) == 2 or (len(texts) == len(values) == 2 and _two_scripts(*values.values())):
        read, told = codes if len(codes) == 2 else texts
        return "translation", {"text": read, "target": told}
    return "", {}


def _is_row(columns: Mapping[str, str], rows: Sequence[Row]) -> bool:
    """Whether the names of columns are a row themselves: nobody's names, and each of its column's script."""
    names, known = list(columns.values()), {*LANGUAGES, *chain(*TRANSLATIONS, *SUMMARIES)}
    chinese = [[_HAN.search(str(each)) is not None for each in (name, rows[0][name])] for name in names]
    return known.isdisjoint(map(_code, names)) and all(a == b for a, b in chinese) and any(a for a, _ in chinese)


def _code(name: str) -> str:
    return re.split(r"[-_]", name.lower().strip())[0]


def _two_scripts(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether one column is Chinese and the other is not."""
    shares = [sum(_HAN.search(str(text)) is not None for text in each) / len(each) for each in (one, other)]
    lettered = all(_LETTER.search(str(text)) for text in chain(one[:20], other[:20]))
    return lettered and min(shares) <= 1 - _MOSTLY and max(shares) >= _MOSTLY
