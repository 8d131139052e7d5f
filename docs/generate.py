"""Write the pages that come from the code: docs/{en,zh}/reference, and docs/{en,zh}/tutorials from the lessons.

`pages()` is {path: text} of the reference, `tutorials()` of the lessons, which it runs; tests hold the pages in the
repository equal to both.
"""

import argparse
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from danlu import catalogue, cli, messages
from danlu.config import Recipe, options
from danlu.errors import UserError
from danlu.learn import tutorial

DOCS = Path(__file__).resolve().parent
WORDS = tomllib.loads((DOCS / "words.toml").read_text("utf-8"))


def pages() -> dict[Path, str]:
    """Every reference page in every language."""
    before, made = messages.language(), {}
    try:
        for language in messages.LANGUAGES:
            messages.use(language)
            for name, render in (("recipe", recipe), ("commands", commands), ("errors", errors)):
                made[DOCS / language / "reference" / f"{name}.md"] = "\n".join([*render(), ""])
    finally:
        messages.use(before)
    return made


def tutorials() -> dict[Path, str]:
    """Every lesson as Markdown, and its pictures; what differs from the page there is only by rounding stays."""
    ran, made = tutorial.run_all(), {}
    for language in tutorial.languages():
        for name, text in tutorial.pages(ran).items():
            path = DOCS / language / "tutorials" / name
            old = path.read_text("utf-8") if path.exists() else ""
            made[path] = tutorial.renewed(old, text)
    return made


def word(key: str) -> str:
    return str(WORDS[messages.language()][key])


def described(english: str) -> str:
    """A description of danlu.config in the language in force.

    Raises:
        KeyError: words.toml lacks the translation.
    """
    if messages.language() == "en":
        return english
    if english not in WORDS["zh"]["description"]:
        raise KeyError(f"[zh.description] of docs/words.toml has no line for {english!r}")
    return str(WORDS["zh"]["description"][english])


def _table(*rows: tuple[str, ...]) -> Iterator[str]:
    """A Markdown table; the first row is its head."""
    for number, row in enumerate(rows):
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        if number == 0:
            yield "|" + "---|" * len(row)


# --- the recipe --------------------------------------------------------------------------------------


def recipe() -> Iterator[str]:
    """recipe.md: one table of keys per section."""
    yield from (f"# {word('recipe')}", "", word("recipe_intro"), "")
    top, sections = _split(Recipe)
    yield from (f"## {word('top')}", "", *_keys(top), "")
    for path, section in sections:
        fields, _ = _split(section)
        yield from (f"## [{path}]", "")
        if note := WORDS[messages.language()]["section"].get(path):
            yield from (note, "")
        shared = _section("train").model_fields if path in ("pretrain", "finetune") else {}
        own = {name: field for name, field in fields.items() if name not in shared}
        if own:
            yield from (*_keys(own), "")
    yield from (f"## {word('options')}", "", word("options_intro"), "")
    for task in catalogue.names():
        if options.stated(task):
            yield from (f"### {task}", "", *_keys(options.section(task).model_fields), "")


def _section(name: str) -> type[BaseModel]:
    found = _model_of(Recipe.model_fields[name].annotation)
    assert found is not None
    return found


def _split(model: type[BaseModel], prefix: str = "") -> tuple[dict[str, FieldInfo], list[tuple[str, type[BaseModel]]]]:
    """Plain keys of a section, and the sections inside it, deepest last."""
    plain: dict[str, FieldInfo] = {}
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        if section := _model_of(field.annotation):
            inner += [(prefix + name, section), *_split(section, f"{prefix}{name}.")[1]]
        else:
            plain[name] = field
    return plain, inner


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part))), None)


def _keys(fields: dict[str, FieldInfo]) -> Iterator[str]:
    rows = [
        (f"`{name}`", _values(field), _default(field), described(field.description or ""))
        for name, field in fields.items()
    ]
    yield from _table((word("key"), word("values"), word("default"), word("what")), *rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return f"**{word('required')}**"
    value = field.default
    if value is None:
        return ""
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value!r}`".replace("'", '"')


def _values(field: FieldInfo) -> str:
    """What may stand there: the choices, or the type and its limits."""
    names = list(dict.fromkeys(_names(field.annotation)))
    limits = [str(limit) for limit in (*field.metadata, *_limits(field.annotation)) if type(limit).__name__ in _SIGNS]
    signs = [f"{_SIGNS[text.split('(')[0]]} {text.split('=')[1].rstrip(')')}" for text in dict.fromkeys(limits)]
    return " · ".join(names) + (f", {', '.join(signs)}" if signs else "")


_SIGNS = {"Ge": "≥", "Gt": ">", "Le": "≤", "Lt": "<"}


def _names(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from (f"`{choice}`" for choice in get_args(annotation))
    elif get_origin(annotation) in (list, dict):
        yield word("list" if get_origin(annotation) is list else "table")
    elif get_args(annotation):
        yield from (name for part in get_args(annotation) for name in _names(part))
    elif annotation in _TYPES:
        yield word(_TYPES[annotation])


_TYPES = {str: "text", int: "integer", float: "number", bool: "boolean"}


def _limits(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield from getattr(part, "metadata", ())
        for each in getattr(part, "__metadata__", ()):
            yield from getattr(each, "metadata", (each,))
        yield from _limits(part)


# --- the commands ------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """commands.md: one section per verb, from the parser itself."""
    parser = cli._parser()
    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    yield from (f"# {word('commands')}", "", word("commands_intro"), "")
    yield from _table(
        (word("command"), word("what")), *((f"[`danlu {name}`](#danlu-{name})", _help(name)) for name in verbs.choices)
    )
    for name, verb in verbs.choices.items():
        own = [action for action in verb._actions if not _shared(action)]
        yield from (
            "",
            f"## danlu {name}",
            "",
            _help(name),
            "",
            "```sh",
            " ".join([f"danlu {name}", *map(_usage, own)]),
            "```",
        )
        if own:
            yield from ("", *_arguments(own))
    yield from (
        "",
        f"## {word('everywhere')}",
        "",
        *_arguments([action for action in parser._actions if _shared(action)]),
    )


def _help(verb: str) -> str:
    return messages.text(f"help.{verb}")


def _shared(action: argparse.Action) -> bool:
    return action.dest in ("help", "lang", "json", "quiet", "verbose", "debug")


def _usage(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest.upper())
    shown = name if not action.option_strings else action.option_strings[-1] + (f" {name}" if action.nargs != 0 else "")
    if action.choices:
        shown = "|".join(map(str, action.choices))
    shown += " ..." if action.nargs == "*" else ""
    return shown if action.required and action.nargs != "*" else f"[{shown}]"


def _arguments(actions: list[argparse.Action]) -> Iterator[str]:
    rows = []
    for action in actions:
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest.upper()}`"
        shown = action.default not in (None, False, argparse.SUPPRESS) and action.dest != "help"
        text = word("help") if action.dest == "help" else str(action.help)
        rows.append((names, f"`{action.default}`" if shown else "", text))
    yield from _table((word("argument"), word("default"), word("what")), *rows)


# --- the errors --------------------------------------------------------------------------------------


def errors() -> Iterator[str]:
    """errors.md: every code, by family."""
    catalogue = messages.catalogue(messages.language())["errors"]
    yield from (f"# {word('errors')}", "", word("errors_intro"))
    for family, title in WORDS[messages.language()]["family"].items():
        codes = sorted(code for code in catalogue if code[1] == family)
        yield from ("", f"## {title.format(exit=UserError(f'E{family}00').exit)}", "")
        yield from _table(
            (word("code"), word("what_it_says"), word("fix")), *(_error(code, catalogue[code]) for code in codes)
        )


def _error(code: str, entry: dict[str, str]) -> tuple[str, ...]:
    return f"`{code}`", _placeholders(entry["what"]), _placeholders(entry.get("fix", ""))


def _placeholders(sentence: str) -> str:
    """Fields as they are seen in a page: ‹name›."""
    return sentence.replace("{", "‹").replace("}", "›").replace("<", "&lt;")


def main() -> None:
    for path, text in (pages() | tutorials()).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
