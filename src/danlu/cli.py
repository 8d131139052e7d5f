"""The danlu command: one subcommand per verb; parse, call, print."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from danlu import messages, ranks, results
from danlu.errors import EXIT_BUG, EXIT_INTERRUPTED, UserError
from danlu.messages import text
from danlu.usage import LEARN, Parser, device, serving


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _language(arguments)
    parser = _parser()
    options = argparse.Namespace(json="--json" in arguments, debug=False)
    ranks.end_with_launcher()
    try:
        options = _parse(parser, arguments)
        options.arguments = arguments
        if not getattr(options, "call", None):
            parser.print_help()
            return 0
        with contextlib.suppress(ValueError):  # outside the main thread signals cannot be caught
            signal.signal(signal.SIGTERM, _terminated)
        return int(options.call(options) or 0)
    except UserError as error:
        return _fail(error, options)
    except KeyboardInterrupt:
        _explain(text("cli.interrupted"))
        return EXIT_INTERRUPTED
    except ranks.RankLost:
        _explain("" if ranks.launched() else text("cli.lost"))
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `danlu runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            _explain(text("cli.stopped", reason=error))
            return EXIT_INTERRUPTED
        if options.debug:
            raise
        said = text("cli.bug", kind=type(error).__name__, reason=error)
        ranks.say_once(type(error).__name__, lambda: print(said, file=sys.stderr))
        return EXIT_BUG


def _explain(said: str) -> None:
    """Say why the command ends early, once for all ranks."""
    if said and ranks.rank() == 0:
        print(said, file=sys.stderr)


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
    ranks.say_once(error.code, lambda: _show(error, options))
    if options.debug:
        raise error
    return error.exit


def _show(error: UserError, options: argparse.Namespace) -> None:
    if not options.json:
        print(error.render(), file=sys.stderr)
        return
    problems = getattr(error, "problems", [error])
    table = [{"code": p.code, "where": p.where, "message": p.render()} for p in problems]
    results.show({"errors": table}, as_json=True)


# --- the verbs ---------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    shared = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--lang", choices=messages.LANGUAGES, help=text("help.lang"))
    shared.add_argument("--json", action="store_true", help=text("help.json"))
    shared.add_argument("-q", "--quiet", action="store_true", help=text("help.quiet"))
    shared.add_argument("-v", "--verbose", action="store_true", help=text("help.verbose"))
    shared.add_argument("--debug", action="store_true", help=text("help.debug"))
    parser = Parser("danlu", description=text("help.danlu"), parents=[shared])
    parser.set_defaults(json=False, quiet=False, verbose=False, debug=False)
    parser.add_argument("--version", action="version", version=_version(), help=text("help.version"))
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
    from danlu.terminal import watching

    return watching(quiet=options.quiet or options.json, verbose=options.verbose)


def _print(value: Any, options: argparse.Namespace) -> None:
    results.show(value, as_json=options.json)


def _table(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    results.table(rows, as_json=options.json)


def _demo(options: argparse.Namespace) -> None:
    from danlu.demo import demo

    with _view(options) as view:
        demo(options.budget, Path(options.out), data=options.data, view=view)


def _init(options: argparse.Namespace) -> None:
    from danlu import tasks
    from danlu.data import starter
    from danlu.files import write_text

    recipe = Path(options.recipe)
    if recipe.exists() and not options.force:
        raise UserError("E114", path=recipe)
    if options.task:
        tasks.check(options.task)
    named = Path(os.path.relpath(options.path, recipe.resolve().parent))
    written, rows = starter.recipe(Path(options.path), named, options.task)
    write_text(recipe, written)
    said = text("cli.initialised", path=recipe, rows=rows)
    _print({"recipe": recipe, "rows": rows} if options.json else said, options)


def _run(options: argparse.Namespace) -> int:
    from danlu.graph import Life
    from danlu.recipe import load_recipe

    life = Life(load_recipe(options.recipe, options.overrides), allow_change=options.allow_change, apart=True)
    if options.plan and options.system:
        from danlu.cluster import needs

        _table(needs(life, Path(options.system)), options)
        return 0
    if options.plan:
        from danlu.forecast import forecast

        _table(forecast(life, options.to), options)
        return 0
    if ranks.rank() != 0:
        life.follow()
        return 0
    devices = life.loaded.recipe.system.devices
    if ranks.count() == 1 and devices > 1 and life.trains(options.to):
        from danlu.launch import launch

        code, said = launch(devices, options.arguments)
        _explain(said)
        return code
    with _view(options) as view:
        run = life.run(view, options.to)
    ranks.tell(None)
    from danlu.report import write

    write(run)
    if options.json:
        stages = {name: {"folder": folder, "why": run.why.get(name, [])} for name, folder in run.folders.items()}
        _print({"run": run.name, "folder": run.folder, "model": run.model, "stages": stages}, options)
    else:
        _print(text("cli.finished", name=run.name, folder=run.folder, model=run.model or "-"), options)
    return 0


def _data(options: argparse.Namespace) -> None:
    from danlu.data import view
    from danlu.graph import Life
    from danlu.recipe import load_recipe

    life = Life(load_recipe(options.recipe, options.overrides))
    with _view(options) as watching:
        run = life.run(watching, "encode")
    if options.json:
        _print(view.contents(run.folders["prepare"]), options)
        return
    for part in view.render(run.folders["prepare"], run.folders["encode"]):
        _print(part, options)


def _prove(options: argparse.Namespace) -> int:
    from danlu.recipe import load_recipe
    from danlu.stages.prove import prove

    with _view(options) as view:
        certificate = prove(load_recipe(options.recipe, options.overrides), view)
    _print(certificate.table() if options.json else certificate.render(), options)
    error = certificate.error()
    if error and not options.json:
        raise error
    return error.exit if error else 0


def _chat(options: argparse.Namespace) -> None:
    import secrets
    from dataclasses import replace

    from danlu.model import Model
    from danlu.serve.chat import converse
    from danlu.serve.engine import Engine

    with Engine(Model.from_pretrained(options.model, device(options)), slots=1, waiting=1) as engine:
        sampling = replace(engine.served.usual, seed=secrets.randbits(62))
        converse(engine, sampling, ask=lambda: input("> "), write=_write)


def _write(piece: str) -> None:
    print(piece, end="", flush=True)


def _compress(options: argparse.Namespace) -> None:
    from danlu.stages.compress import compress_folder

    _print(compress_folder(Path(options.model), Path(options.out), device(options)), options)


def _serve(options: argparse.Namespace) -> None:
    config = serving(options)
    from danlu.model import Model
    from danlu.runs import model_folder
    from danlu.serve.run import serve

    folder, where = model_folder(options.model), device(options)
    serve(lambda: Model.from_pretrained(folder, where), folder.name, config, _serving)


def _serving(url: str) -> None:
    _write(text("cli.serving", url=url) + "\n")


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
        whys = runs.why(*found).items()
        _table([{"stage": name, "why": "; ".join(why) or text("graph.cached")} for name, why in whys], options)
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

    records, folders = runs.doomed(root, keep=options.keep, older=options.older, larger_mb=options.larger)
    if options.yes:
        freed = runs.clear([*records, *folders])
        _print({"freed": freed} if options.json else text("runs.freed", size=f"{freed / 1e6:,.1f} MB"), options)
    elif options.json:
        _print(
            {"runs": [path.name for path in records], "folders": {str(path): size for path, size in folders.items()}},
            options,
        )
    else:
        _table([{"run": folder.name} for folder in records], options)
        _table([{"folder": folder.name, "MB": round(size / 1e6, 1)} for folder, size in folders.items()], options)
        _print(text("runs.gc"), options)


def _list(options: argparse.Namespace) -> None:
    import importlib

    listed = importlib.import_module(f"danlu.{options.what}").names()
    _table([{"name": name, "what": what} for name, what in listed.items()], options)


def _of(module: str, name: str) -> Any:
    """A verb that stands in a file of its own, loaded when it is called."""
    import importlib

    return lambda options: getattr(importlib.import_module(module), name)(options)


_RECIPE = ("recipe", {"nargs": "?", "default": "recipe.toml"})
_OVERRIDES = ("overrides", {"nargs": "*", "metavar": "key=value"})
_MODEL: tuple[str, dict[str, Any]] = ("model", {})
_DEVICE: tuple[str, dict[str, Any]] = ("--device", {})
_INPUT: tuple[str, dict[str, Any]] = ("input", {"nargs": "?"})
_PAGE: tuple[str, dict[str, Any]] = ("--page", {"metavar": "FILE"})
_FLAG = {"action": "store_true"}
_INT = {"type": int}
VERBS: dict[str, tuple[Any, list[tuple[str, dict[str, Any]]]]] = {
    "demo": (_demo, [("--budget", {"default": "5min"}), ("--data", {}), ("--out", {"default": "danlu-demo"})]),
    "init": (
        _init,
        [("path", {}), ("--task", {"default": ""}), ("--recipe", {"default": "recipe.toml"}), ("--force", _FLAG)],
    ),
    "run": (
        _run,
        [
            _RECIPE,
            _OVERRIDES,
            ("--plan", _FLAG),
            ("--system", {"metavar": "FILE"}),
            ("--to", {"metavar": "STAGE"}),
            ("--allow-change", _FLAG),
        ],
    ),
    "data": (_data, [_RECIPE, _OVERRIDES]),
    "prove": (_prove, [_RECIPE, _OVERRIDES]),
    "evaluate": (_of("danlu.compare", "evaluate"), [("models", {"nargs": "+"}), ("data", {}), _PAGE, _DEVICE]),
    "explain": (_of("danlu.why", "explain"), [_MODEL, _INPUT, ("--target", {"default": ""}), _PAGE, _DEVICE]),
    "predict": (
        _of("danlu.asking", "predict"),
        [_MODEL, _INPUT, ("--among", {"metavar": "FILE"}), ("--picture", {"metavar": "FILE"}), _DEVICE],
    ),
    "chat": (_chat, [_MODEL, _DEVICE]),
    "compress": (_compress, [_MODEL, ("--out", {"required": True}), _DEVICE]),
    "serve": (
        _serve,
        [_MODEL, ("--host", {}), ("--port", _INT), ("--slots", _INT), ("--queue", _INT), ("--api-key", {}), _DEVICE],
    ),
    "runs": (
        _runs,
        [
            ("what", {"nargs": "*", "metavar": "show|why|compare|gc"}),
            ("--root", {"default": "runs"}),
            ("--older", {"default": "30d"}),
            ("--larger", {"type": float, "default": 0.0, "metavar": "MB"}),
            ("--keep", {"type": int}),
            ("--yes", _FLAG),
        ],
    ),
    "learn": (_of("danlu.learn.command", "learn"), LEARN),
    "list": (_list, [("what", {"choices": ["tasks", "models"]})]),
}
