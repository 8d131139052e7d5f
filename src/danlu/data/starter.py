"""The first recipe for raw files: what they hold decides its task."""

import importlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from danlu import messages
from danlu.data import sources
from danlu.data.sources import SourceFile
from danlu.errors import UserError

SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "dev", "validation", "development"),
    "test": ("test",),
}
_KINDS = {  # task: who recognises its raw files, the more particular first
    "segmentation": "masked",
    "object_detection": "boxed",
    "image_classification": "pictured",
    "reading_comprehension": "questions",
    "token_classification": "tagged",
    "relation_extraction": "relations",
    "multiple_choice": "choices",
    "multi_label_classification": "multilabelled",
    "text_regression": "scored",
    "text_classification": "labelled",
    "translation": "targeted",
    "summarization": "targeted",
    "sentence_embedding": "alike",
    "tabular_classification": "tables",
    "tabular_regression": "tables",
}
_OF_PICTURES = "image_generation", "adversarial_image_generation", "masked_image_modeling"  # where asked for alone
_NOTES = re.compile(r"(readme|license|licence|copying|notice|changelog|contributing)\b", re.IGNORECASE)
_FEW = 2000  # rows below which a larger share is held out
_LIST = 20  # a list of classes is at least so many times smaller than the rows
_PARTS = 20  # files of one set that a recipe names one by one, at most
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
    others: Sequence[Path] = ()  # that are left out
    parts: Sequence[Path] = ()  # all files to train on, where they are several
    joined: Mapping[Path, Path] = field(default_factory=dict)  # file -> another that is to be named with it
    root: Path | None = None  # the folder from which the files are named; None: each lies where it was looked for
    also: Sequence[Path] = ()  # files that are to be named with those to train on
    beside: str = ""  # how the names of files end that belong to those and are to be named too

    def paths(self, split: str) -> list[Path]:
        return [*self._of(split), *(self.also if split == "train" else ())]

    def _of(self, split: str) -> list[Path]:
        files = self.parts if self.parts and split == "train" else [self.files[split]]
        if self.joined:
            return [each for file in files for each in (file, self.joined[file])]
        return [each for file in files for each in (file, file.with_suffix(self.beside))[: 1 + bool(self.beside)]]

    @property
    def about(self) -> str:
        size = sum(map(_size, {*self.files.values(), *self.parts}))
        rows = {"rows": f"{self.count:,}", "size": f"{size / 1e6:.2f} MB"}
        return messages.text(f"init.{self.message}", **rows, **self.said)


def _size(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file())


def recipe(source: Path, named: Path, task: str = "") -> tuple[str, int]:
    """A short commented recipe for what is found at `source`, which it calls `named`, and the rows that were seen.

    `task`: the one that they are for; "" = what they look like.

    Raises:
        UserError: nothing there, no file of a kind we read, or rows without text; E281, the files are not of the task;
            E282, no recipe is begun for it.
    """
    from danlu.data import sniff

    for known in (task,) if task else _KINDS:
        found = look(source.resolve(), known)
        if found and task in ("", found.task):
            return text(found, named), found.count
    if task not in ("", sniff.TASK):
        _candidates(source.resolve(), None, ())  # says it where nothing is there at all
        valid = (*_KINDS, *_OF_PICTURES, sniff.TASK)
        raise UserError("E281" if task in valid else "E282", path=named, task=task, valid=", ".join(valid))
    sniffed = sniff.sniff(source)
    return sniff.recipe_text(sniffed, named), sniffed.rows


def keys(path: Path, task: str) -> dict[str, Any]:
    """How the raw files there are read for a task: keys of [data]; none where nothing is found for it.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    found = look(path, task)
    return dict(found.keys) if found else {}


def taught(folder: Path, path: Path) -> dict[str, Any]:
    """How a model's own recipe names the columns, where a file has them: a key of [data]; none where it has not."""
    from danlu.data import formats

    recipe = folder / "danlu.toml"
    columns = tomllib.loads(recipe.read_text("utf-8"))["data"].get("columns", {}) if recipe.is_file() else {}
    if not columns or not path.is_file():
        return {}
    (source,) = sources.describe([path])
    first = next((raw for _, raw in formats.read(source, formats.Cut()) if isinstance(raw, dict)), {})
    return {"columns": columns} if {*columns.values()} <= {*first} else {}


def look(path: Path, task: str) -> Found | None:
    """What is recognised at a file or folder for a task; None where nothing is.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    if task in _OF_PICTURES:
        from danlu.data import pictured

        return pictured.alone(path, task)
    if task not in _KINDS:
        return None
    kind = importlib.import_module(f"danlu.data.{_KINDS[task]}")
    if survey := getattr(kind, "survey", None):  # which asks for all that is there at once
        seen: Found | None = survey(path)
        return seen
    there = _candidates(path, getattr(kind, "FORMATS", None), getattr(kind, "ALSO", ()))
    files = by_split(there)
    if "train" not in files:
        return _of_parts(there, kind.look)
    (source,) = sources.describe([files["train"]])
    found = kind.look(source)
    return replace(found, files=files, others=sorted({*there} - {*files.values()})) if found else None


def _of_parts(there: Sequence[Path], look: Callable[[SourceFile], Found | None]) -> Found | None:
    """Files whose names say no split and which are all of one form: together they are to train on."""
    if not 1 < len(there) <= _PARTS or any(_split(path)[0] for path in there):
        return None
    found = [look(source) for source in sources.describe(there)]
    first = found[0]
    if first is None or any(each is None or (each.task, each.keys) != (first.task, first.keys) for each in found):
        return None
    count = sum(each.count for each in found if each)
    return replace(first, files={"train": there[0]}, parts=tuple(there), count=count)


def _candidates(path: Path, kinds: Sequence[str] | None, also: Sequence[str]) -> list[Path]:
    """The files there of some formats (None: of any), and `also` those with other endings."""
    try:
        found = without_notes(sources.discover([str(path)], Path(path.anchor), also=also))
    except UserError as error:
        if error.code != "E203":
            raise
        return []  # files of other kinds alone: who reads those may know them
    return [each for each in found if kinds is None or sources.format_of(each) in kinds or each.suffix in also]


def without_notes(found: Sequence[Path]) -> Sequence[Path]:
    """The files that are not about the others (README, LICENSE, ...), where there are others."""
    return [path for path in found if not is_note(path)] or found


def is_note(path: Path) -> bool:
    """Whether a file is about others, as its name says."""
    return bool(_NOTES.match(path.name))


def commented(key: str, value: str, note: str) -> str:
    """A line of a recipe, with what it means."""
    return f"{f'{key} = {value}':<40}  # {messages.text(f'init.note.{note}')}"


def quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def by_split(found: Sequence[Path]) -> dict[str, Path]:
    """The file of each split, by its name.

    A single file is to train on, also beside one to test; so are validation files where no other is. Of several sets
    of files that have splits, it is the largest one with files to train on.
    """
    if len(found) == 1:
        return {"train": found[0]}
    named = _grouped(found, lambda path: _split(path)[0])
    rest = named.pop("", [])
    if any(len(paths) > 1 for paths in named.values()):
        return _of_sets(found)
    files = {split: path for split, (path,) in named.items()}
    beside = len(rest) == 1 and files and "train" not in files
    # what is far smaller than the file to validate on is a list of classes, or the like
    if beside and ("valid" not in files or rest[0].stat().st_size > files["valid"].stat().st_size / _LIST):
        files["train"] = rest[0]
    if "train" not in files and {"valid", "test"} <= files.keys():
        files = {"train": files["valid"], "test": files["test"]}
    return files


def _of_sets(found: Sequence[Path]) -> dict[str, Path]:
    """The files of the largest set among several."""
    sets = _grouped(found, lambda path: _split(path)[1])
    whole = [each for each in sets.values() if len(each) > 1 and "train" in {_split(path)[0] for path in each}]
    if len(sets) == 1 or not whole:
        return {}
    return by_split(max(whole, key=lambda each: sum(path.stat().st_size for path in each)))


def _grouped(found: Sequence[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in found:
        groups.setdefault(key(path), []).append(path)
    return groups


def _split(path: Path) -> tuple[str, str]:
    """The split that a file's name says, or "", and the rest of the name: files of one set have the same."""
    name = (path.with_suffix("") if path.suffix in sources.PACKED else path).name.lower()
    for split, known in SPLITS.items():
        for word in known:
            if match := re.search(rf"(?<![a-z]){word}(?![a-z])", name):
                return split, name[: match.start()] + name[match.end() :]
    return "", name


def path_lines(found: Found, path: Path) -> Iterator[str]:
    """The lines of [data] that name the files of each split; `path` is how the recipe names where they were found."""
    itself = path.name in {file.name for file in found.files.values()} or any(sign in path.name for sign in "*?[")
    folder = path.parent if itself and not found.root else path
    for split in (split for split in SPLITS if split in found.files):
        names = [quoted((folder / _inside(found, file)).as_posix()) for file in found.paths(split)]
        value = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
        yield commented("path" if split == "train" else split, value, split)


def _inside(found: Found, file: Path) -> Path:
    """How a file is named from the folder that was looked at."""
    return file.relative_to(found.root) if found.root else Path(file.name)


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
    lines = [f"# {found.about}", f"# {messages.text('init.run')}"]
    if found.others:
        lines.append(f"# {messages.text('init.left_out', n=len(found.others), first=found.others[0].name)}")
    lines += ["", f'task = "{found.task}"', "", "[data]"]
    lines += [*path_lines(found, path), *key_lines(found)]
    for section, keys in found.settings.items():
        lines += ["", f"[{section}]", *(commented(key, value, _note(found, key)) for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def _note(found: Found, key: str) -> str:
    """Which note says what a key means: one of this kind of files, where there is one."""
    own = f"{found.message}_{key}"
    return own if messages.find(f"init.note.{own}") else key


def settings(
    texts: Iterable[str], train: Mapping[str, str], depth: str = '"auto"', **more: Mapping[str, str]
) -> Settings:
    """Settings to learn from such texts, with these of [train] and of other sections."""
    return {"model": {"depth": depth, "context": str(context(map(tokens, texts)))}, "train": train, **more}


def context(lengths: Iterable[int]) -> int:
    """The smallest context in which all but a few of texts of so many tokens fit, with control tokens around."""
    needed = sorted(lengths)
    most = needed[int(0.99 * (len(needed) - 1))] + 3
    return next((size for size in _CONTEXTS if size >= most), _CONTEXTS[-1])


def tokens(written: str) -> int:
    """About how many tokens a text has: one for each character without case (Chinese), one for four others."""
    unspaced = sum(ord(char) >= 0x2E80 for char in written)
    return unspaced + (len(written) - unspaced) // 4 + 1
