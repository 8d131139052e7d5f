"""The first recipe for raw files: what they hold decides its task."""

import importlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from danlu import messages
from danlu.data import sources

SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "dev", "validation", "development"),
    "test": ("test",),
}
_KINDS = {  # task: who recognises its raw files, the more particular first
    "reading_comprehension": "questions",
    "token_classification": "tagged",
    "relation_extraction": "relations",
    "multiple_choice": "choices",
    "multi_label_classification": "multilabelled",
    "text_regression": "scored",
    "text_classification": "labelled",
    "tabular_classification": "tables",
    "tabular_regression": "tables",
}
_FEW = 2000  # rows below which a larger share is held out
_CONTEXTS = (32, 64, 128, 256, 512)


Settings = Mapping[str, Mapping[str, str]]  # by section of a recipe: keys and values as TOML


@dataclass(frozen=True)
class Found:
    """Raw files of one task: how they are read, and what a recipe says of them."""

    task: str
    keys: Mapping[str, Any]  # of [data], beside the paths
    count: int  # of rows to learn from, 50,000 at most
    message: str  # that says what was found
    said: Mapping[str, Any]  # its fields, beside the rows and the size
    settings: Settings
    files: Mapping[str, Path] = field(default_factory=dict)  # by split; "train" is always there

    @property
    def about(self) -> str:
        size = sum(path.stat().st_size for path in self.files.values())
        rows = {"rows": f"{self.count:,}", "size": f"{size / 1e6:.2f} MB"}
        return messages.text(f"init.{self.message}", **rows, **self.said)


def recipe(source: Path, named: Path) -> tuple[str, int]:
    """A short commented recipe for what is found at `source`, which it calls `named`, and the rows that were seen.

    Raises:
        UserError: nothing there, no file of a kind we read, or rows without text.
    """
    from danlu.data import sniff

    for task in _KINDS:
        found = look(source.resolve(), task)
        if found:
            return text(found, named), found.count
    sniffed = sniff.sniff(source)
    return sniff.recipe_text(sniffed, named), sniffed.rows


def keys(path: Path, task: str) -> dict[str, Any]:
    """How the raw files there are read for a task: keys of [data]; none where nothing is found for it.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    found = look(path, task)
    return dict(found.keys) if found else {}


def look(path: Path, task: str) -> Found | None:
    """What is recognised at a file or folder for a task; None where nothing is.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    if task not in _KINDS:
        return None
    kind = importlib.import_module(f"danlu.data.{_KINDS[task]}")
    there = sources.discover([str(path)], Path(path.anchor))
    kinds = getattr(kind, "FORMATS", None)  # of files; others are passed over
    files = by_split([file for file in there if kinds is None or sources.format_of(file) in kinds])
    if "train" not in files:
        return None
    (source,) = sources.describe([files["train"]])
    found = kind.look(source)
    return replace(found, files=files) if found else None


def commented(key: str, value: str, note: str) -> str:
    """A line of a recipe, with what it means."""
    return f"{f'{key} = {value}':<40}  # {messages.text(f'init.note.{note}')}"


def quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def by_split(found: Sequence[Path]) -> dict[str, Path]:
    """The file of each split, by its name.

    A single file is to train on, also beside one to test; so are validation files where no other is.
    """
    named: dict[str, list[Path]] = {}
    for path in found:
        words = re.split(r"[^a-z]+", path.name.lower())
        named.setdefault(next((split for split, known in SPLITS.items() if set(known) & set(words)), ""), []).append(
            path
        )
    if len(found) == 1:
        return {"train": found[0]}
    if any(len(paths) > 1 for split, paths in named.items() if split):
        return {}
    files = {split: paths[0] for split, paths in named.items() if split}
    if "train" not in files and "test" in files and len(named.get("", ())) == 1:
        files["train"] = named[""][0]
    if "train" not in files and {"valid", "test"} <= files.keys():
        files = {"train": files["valid"], "test": files["test"]}
    return files


def path_lines(files: Mapping[str, Path], path: Path) -> Iterator[str]:
    """The lines of [data] that name the file of each split; `path` is how the recipe names where they were found."""
    folder = path if len(files) > 1 and not any(sign in path.name for sign in "*?[") else path.parent
    for split, file in sorted(files.items(), key=lambda each: ("train", "valid", "test").index(each[0])):
        key = "path" if split == "train" else split
        yield commented(key, quoted((folder / file.name).as_posix()), split)


def key_lines(found: Found) -> Iterator[str]:
    """The other lines of [data]."""
    for key, value in found.keys.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{ours} = {quoted(yours)}" for ours, yours in value.items())
            yield commented(key, f"{{ {inner} }}", key)
        elif isinstance(value, list):
            yield commented(key, f"[{', '.join(map(quoted, value))}]", key)
        else:
            yield commented(key, str(value).lower() if isinstance(value, bool) else quoted(value), key)
    drawn = {"valid": 0.1, "test": 0.2 if found.count < _FEW else 0.1}
    shares = drawn if "test" not in found.files else {"valid": 0.05, "test": 0.0}
    if "valid" not in found.files:
        yield commented("split", f"{{ valid = {shares['valid']}, test = {shares['test']} }}", "split")


def text(found: Found, path: Path) -> str:
    """A short commented recipe for what was found at `path`, as the recipe shall name it; it runs as it stands."""
    lines = [f"# {found.about}", f"# {messages.text('init.run')}", "", f'task = "{found.task}"', "", "[data]"]
    lines += [*path_lines(found.files, path), *key_lines(found)]
    for section, keys in found.settings.items():
        lines += ["", f"[{section}]", *(commented(key, value, _note(found, key)) for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def _note(found: Found, key: str) -> str:
    """Which note says what a key means: one of this kind of files, where there is one."""
    own = f"{found.message}_{key}"
    return own if messages.find(f"init.note.{own}") else key


def settings(texts: Iterable[str], train: Mapping[str, str], **more: Mapping[str, str]) -> Settings:
    """Settings to learn from such texts, with these of [train] and of other sections."""
    return {"model": {"depth": '"auto"', "context": str(context(map(tokens, texts)))}, "train": train, **more}


def context(lengths: Iterable[int]) -> int:
    """The smallest context in which all but a few of texts of so many tokens fit, with control tokens around."""
    needed = sorted(lengths)
    most = needed[int(0.99 * (len(needed) - 1))] + 3
    return next((size for size in _CONTEXTS if size >= most), _CONTEXTS[-1])


def tokens(written: str) -> int:
    """About how many tokens a text has: one for each character without case (Chinese), one for four others."""
    unspaced = sum(ord(char) >= 0x2E80 for char in written)
    return unspaced + (len(written) - unspaced) // 4 + 1
