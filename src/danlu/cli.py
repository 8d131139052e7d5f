"""The danlu command: one subcommand per verb; parse, call, print."""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from danlu import messages
from danlu.errors import EXIT_BUG, EXIT_INTERRUPTED, UserError
from danlu.messages import text


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _language(arguments)
    parser = _parser()
    options = _parse(parser, arguments)
    if not getattr(options, "call", None):
        parser.print_help()
        return 0
    try:
        with contextlib.suppress(ValueError):  # outside the main thread signals cannot be caught
            signal.signal(signal.SIGTERM, _terminated)
        return int(options.call(options) or 0)
    except UserError as error:
        return _fail(error, options)
    except KeyboardInterrupt:
        print(text("cli.interrupted"), file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `danlu runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            print(text("cli.stopped", reason=error), file=sys.stderr)
            return EXIT_INTERRUPTED
        if options.debug:
            raise
        print(text("cli.bug", kind=type(error).__name__, reason=error), file=sys.stderr)
        return EXIT_BUG


def _terminated(number: int, frame: Any) -> None:
    """A polite kill ends like Ctrl-C: what was finished stays."""
    raise KeyboardInterrupt


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Like parse_args, but key=value may stand before, between and after the options."""
    options, rest = parser.parse_known_args(arguments)
    if not hasattr(options, "overrides") or not all("=" in each and not each.startswith("-") for each in rest):
        options = parser.parse_args(arguments)
    if hasattr(options, "overrides"):
        options.overrides = [*options.overrides, *rest]
        if "=" in options.recipe and not Path(options.recipe).exists():
            options.recipe, options.overrides = "recipe.toml", [options.recipe, *options.overrides]
    return options


def _language(arguments: Sequence[str]) -> None:
    for at, argument in enumerate(arguments):
        chosen = (
            arguments[at + 1] if argument == "--lang" and at + 1 < len(arguments) else argument.removeprefix("--lang=")
        )
        if argument.startswith("--lang") and chosen in messages.LANGUAGES:
            messages.use(chosen)


def _fail(error: UserError, options: argparse.Namespace) -> int:
    if options.json:
        problems = getattr(error, "problems", [error])
        table = [{"code": p.code, "where": p.where, "message": p.render()} for p in problems]
        print(json.dumps({"errors": table}, ensure_ascii=False))
    else:
        print(error.render(), file=sys.stderr)
    if options.debug:
        raise error
    return error.exit


# --- the verbs ---------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--lang", choices=messages.LANGUAGES, help=text("help.lang"))
    shared.add_argument("--json", action="store_true", help=text("help.json"))
    shared.add_argument("-q", "--quiet", action="store_true", help=text("help.quiet"))
    shared.add_argument("-v", "--verbose", action="store_true", help=text("help.verbose"))
    shared.add_argument("--debug", action="store_true", help=text("help.debug"))
    parser = argparse.ArgumentParser("danlu", description=text("help.danlu"), parents=[shared])
    parser.set_defaults(json=False, quiet=False, verbose=False, debug=False)
    parser.add_argument("--version", action="version", version=_version())
    verbs = parser.add_subparsers(title=text("help.verbs"), metavar="VERB")
    for name, (call, arguments) in VERBS.items():
        verb = verbs.add_parser(name, help=text(f"help.{name}"), description=text(f"help.{name}"), parents=[shared])
        for names, settings in arguments:
            verb.add_argument(
                *names.split(), help=text(f"help.argument.{names.strip('-').replace('-', '_')}"), **settings
            )
        verb.set_defaults(call=call)
    return parser


def _version() -> str:
    from danlu import __version__

    return f"danlu {__version__}"


def _view(options: argparse.Namespace) -> Any:
    from danlu.terminal import Terminal

    return Terminal(quiet=options.quiet or options.json)


def _print(value: Any, options: argparse.Namespace) -> None:
    """A result: JSON where asked for, else a table of rich, else text."""
    if options.json:
        print(json.dumps(value, ensure_ascii=False, default=str))
        return
    from rich.console import Console

    Console().print(value, highlight=False, markup=False) if isinstance(value, str) else Console().print(value)


def _demo(options: argparse.Namespace) -> None:
    from danlu.demo import demo

    demo(options.budget, Path(options.out), data=options.data, view=_view(options))


def _init(options: argparse.Namespace) -> None:
    from danlu.data.sniff import recipe_text, sniff
    from danlu.files import write_text

    recipe = Path(options.recipe)
    if recipe.exists() and not options.force:
        raise UserError("E114", path=recipe)
    sniffed = sniff(Path(options.path))
    write_text(recipe, recipe_text(sniffed, Path(os.path.relpath(options.path, recipe.resolve().parent))))
    print(text("cli.initialised", path=recipe, rows=sniffed.rows))


def _run(options: argparse.Namespace) -> None:
    from danlu.graph import Life
    from danlu.recipe import load_recipe

    life = Life(load_recipe(options.recipe, options.overrides))
    if options.plan:
        from danlu.forecast import forecast

        _table(forecast(life, options.to), options)
        return
    run = life.run(view := _view(options), options.to)
    view.close()
    from danlu.report import write

    write(run)
    _print(text("cli.finished", name=run.name, folder=run.folder, model=run.model or "-"), options)


def _data(options: argparse.Namespace) -> None:
    from danlu.data import view
    from danlu.graph import Life
    from danlu.recipe import load_recipe

    run = Life(load_recipe(options.recipe, options.overrides)).run(_view(options), "encode")
    for part in view.render(run.folders["prepare"], run.folders["encode"]):
        _print(part, options)


def _evaluate(options: argparse.Namespace) -> None:
    from danlu.runs import model_folder
    from danlu.stages.evaluate import on_data

    figures = on_data(model_folder(options.model), options.data)
    if options.json:
        _print(figures, options)
    else:
        _table([{"metric": text(f"metrics.{name}"), "value": value} for name, value in figures.items()], options)


def _predict(options: argparse.Namespace) -> None:
    from danlu.model import Model

    prompt = options.input if options.input is not None else sys.stdin.read()
    _print(Model.from_pretrained(options.model).predict(prompt), options)


def _chat(options: argparse.Namespace) -> None:
    import secrets

    from danlu.model import Model
    from danlu.nn.generate import Sampling
    from danlu.serve.chat import converse
    from danlu.serve.engine import Engine

    with Engine(Model.from_pretrained(options.model), slots=1, waiting=1) as engine:
        converse(
            engine,
            Sampling(temperature=0.8, top_p=0.95, seed=secrets.randbits(62)),
            ask=lambda: input("> "),
            write=_write,
        )


def _write(piece: str) -> None:
    print(piece, end="", flush=True)


def _compress(options: argparse.Namespace) -> None:
    from danlu.stages.compress import compress_folder

    _print(compress_folder(Path(options.model), Path(options.out)), options)


def _serve(options: argparse.Namespace) -> None:
    from danlu.model import Model
    from danlu.runs import model_folder
    from danlu.serve.run import serve

    folder = model_folder(options.model)
    serve(
        lambda: Model.from_pretrained(folder),
        folder.name,
        _serving(folder, options),
        lambda url: print(text("cli.serving", url=url), flush=True),
    )


def _serving(folder: Path, options: argparse.Namespace) -> Any:
    """The [serve] table of the model's recipe, with what the command line says in its place."""
    from danlu.config import Serve
    from danlu.recipe import load_recipe

    names = ("host", "port", "slots", "api_key")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    recipe = folder / "danlu.toml"
    written = load_recipe(recipe).recipe.serve.model_dump() if recipe.exists() else {}
    try:
        return Serve(**written | given)
    except ValueError as error:
        raise UserError("E106", key="serve", reason=str(error).splitlines()[2].strip()) from error


def _runs(options: argparse.Namespace) -> None:
    from danlu import runs

    action, *names = options.what or ["list"]
    root = Path(options.root)
    if action not in _RUNS or len(names) != _RUNS[action]:
        raise UserError("E115")
    found = [runs.find(root, name) for name in names]
    if action == "list":
        _table([runs.summary(run) for run in runs.runs(root)], options)
    elif action == "show":
        _print(runs.show(*found), options)
    elif action == "why":
        _table(
            [
                {"stage": stage, "why": "; ".join(why) or text("graph.cached")}
                for stage, why in runs.why(*found).items()
            ],
            options,
        )
    elif action == "compare":
        _compare(found[0], found[1], options)
    else:
        _collect(root, options)


_RUNS = {"list": 0, "show": 1, "why": 1, "compare": 2, "gc": 0}


def _compare(a: Any, b: Any, options: argparse.Namespace) -> None:
    from danlu import runs

    changed, figures = runs.compare(a, b)
    rows = [{"metric": name, a.name: left, b.name: right} for name, (left, right) in figures.items()]
    if options.json:
        _print({"changed": changed, "metrics": rows}, options)
        return
    _print("\n".join(changed) or text("runs.same"), options)
    _table(rows, options)


def _collect(root: Path, options: argparse.Namespace) -> None:
    """`runs gc`: list what can go; delete only with --yes."""
    from danlu import runs

    records = runs.forget(root, options.keep) if options.keep else []
    if options.yes:
        freed = runs.clear(records)
        freed += runs.clear([folder for folder, _ in runs.garbage(root, older=options.older)])
        _print(text("runs.freed", size=f"{freed / 1e6:,.1f} MB"), options)
        return
    _table([{"run": folder.name} for folder in records], options)
    _table(
        [
            {"folder": folder.name, "MB": round(size / 1e6, 1)}
            for folder, size in runs.garbage(root, older=options.older)
        ],
        options,
    )
    _print(text("runs.gc"), options)


def _table(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Rows with the same keys as a table."""
    if options.json:
        _print(rows, options)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*dict.fromkeys(key for row in rows for key in row), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(row.get(str(column.header))) for column in table.columns))
    Console().print(table)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _list(options: argparse.Namespace) -> None:
    import importlib

    listed = importlib.import_module(f"danlu.{options.what}").names()
    _table([{"name": name, "what": what} for name, what in listed.items()], options)


_RECIPE = ("recipe", {"nargs": "?", "default": "recipe.toml"})
_OVERRIDES = ("overrides", {"nargs": "*", "metavar": "key=value"})
_MODEL: tuple[str, dict[str, Any]] = ("model", {})
_FLAG = {"action": "store_true"}
VERBS: dict[str, tuple[Any, list[tuple[str, dict[str, Any]]]]] = {
    "demo": (_demo, [("--budget", {"default": "5min"}), ("--data", {}), ("--out", {"default": "danlu-demo"})]),
    "init": (_init, [("path", {}), ("--recipe", {"default": "recipe.toml"}), ("--force", _FLAG)]),
    "run": (_run, [_RECIPE, _OVERRIDES, ("--plan", _FLAG), ("--to", {"metavar": "STAGE"})]),
    "data": (_data, [_RECIPE, _OVERRIDES]),
    "evaluate": (_evaluate, [_MODEL, ("data", {})]),
    "predict": (_predict, [_MODEL, ("input", {"nargs": "?"})]),
    "chat": (_chat, [_MODEL]),
    "compress": (_compress, [_MODEL, ("--out", {"required": True})]),
    "serve": (
        _serve,
        [_MODEL, ("--host", {}), ("--port", {"type": int}), ("--slots", {"type": int}), ("--api-key", {})],
    ),
    "runs": (
        _runs,
        [
            ("what", {"nargs": "*", "metavar": "show|why|compare|gc"}),
            ("--root", {"default": "runs"}),
            ("--older", {"default": "30d"}),
            ("--keep", {"type": int}),
            ("--yes", _FLAG),
        ],
    ),
    "list": (_list, [("what", {"choices": ["tasks", "models"]})]),
}
