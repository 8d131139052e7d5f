"""`danlu demo`: the whole life of one model, from the Python source on this machine to answers of its own service."""

import sysconfig
import time
from pathlib import Path

import tomli_w

from danlu import device, files
from danlu.config import Serve
from danlu.errors import UserError
from danlu.graph import Life, Run, View
from danlu.messages import text
from danlu.quantity import seconds
from danlu.recipe import Loaded, load_recipe

_EXCLUDED = ("test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3")
_MOST_MB, _LEAST_MB = 10.0, 3.0
_AFTER = 0.08  # share of the budget kept for evaluation, compression and the service, at least:
_AFTER_LEAST, _TRAINING_LEAST = 18.0, 20.0  # seconds
_TUNING = 0.22  # share of the training time that goes to fine-tuning


def demo(budget: str, folder: Path, *, data: str | None, view: View) -> Run:
    """Prepare, encode, pretrain, finetune, evaluate, compress, serve; `budget` is the wall time of all of it.

    Raises:
        UserError: E117 a budget that is none, E116 too little source on this machine, or any stage's own.
    """
    started = time.monotonic()
    recipe = folder / "recipe.toml"
    if not _fits(recipe, budget, data):
        source = _source(data)
        files.write_text(recipe, _text(source, "", rest=seconds(budget)))
        view.line(text("demo.first", path=source, budget=budget))
        Life(load_recipe(recipe)).run(view, "encode_finetune")
        spent = time.monotonic() - started
        files.write_text(recipe, _text(source, _wish(budget, data), rest=_rest(seconds(budget), spent)))
    loaded = load_recipe(recipe)
    run = Life(loaded).run(view)
    answers = _served(run, loaded, view)
    _finish(run, answers, budget, time.monotonic() - started, view)
    return run


def _fits(recipe: Path, budget: str, data: str | None) -> bool:
    """Whether an earlier demo of the same wish stands in the folder: then it goes on, or has nothing to do."""
    try:
        wanted = seconds(budget)
    except ValueError as error:
        raise UserError("E117", found=budget, reason=str(error)) from error
    if wanted < 20:
        raise UserError("E117", found=budget, reason=text("demo.too_short"))
    return recipe.exists() and _wish(budget, data) in recipe.read_text("utf-8")


def _source(data: str | None) -> Path:
    """The folder to learn from.

    Raises:
        UserError: E116, fewer than 3 MB of Python source on this machine.
    """
    source = Path(data).resolve() if data else Path(sysconfig.get_paths()["stdlib"])
    from danlu.data.sources import discover

    found = (
        discover([str(source / "**/*.py") if source.is_dir() else str(source)], source, _EXCLUDED)
        if source.exists()
        else []
    )
    size = sum(path.stat().st_size for path in found) / 1e6
    if size < _LEAST_MB:
        raise UserError("E116", path=source, size=f"{size:.1f}", least=f"{_LEAST_MB:.0f}")
    return source


def _rest(budget: float, spent: float) -> float:
    """Seconds for the trainings."""
    return max(_TRAINING_LEAST, budget - max(budget * _AFTER, _AFTER_LEAST) - spent)


def _text(source: Path, wish: str, rest: float) -> str:
    """The demo's recipe: an ordinary one, to be read, changed and run; `rest` seconds go to its trainings.

    `wish` says that it is final: until the data are read it is left out, and an interrupted demo begins anew.
    """
    tune = rest * _TUNING
    table = {
        "task": "language_modeling",
        "data": {
            "path": str(source / "**/*.py") if source.is_dir() else str(source),
            "exclude": list(_EXCLUDED),
            "limit_mb": _MOST_MB,
            "bad_records": "skip",
            "split": {"valid": 0.03, "test": 0.03},
        },
        "model": {"arch": "gpt", "context": 256},
        "pretrain": {"budget": f"{rest - tune:.0f}s", "sample": "def parse_date(text):\n"},
        "finetune": {"derive": "python_functions", "budget": f"{tune:.0f}s"},
        "evaluate": {"ngram": 5},
        "compress": {"kind": "int8"},
    }
    return f"# {text('demo.recipe')}\n{wish}{tomli_w.dumps(table)}"


def _wish(budget: str, data: str | None) -> str:
    """What was asked for, kept in the recipe so that the same demo again goes on with it."""
    return f"# budget {budget}, data {data or 'python'}\n"


# --- the service -------------------------------------------------------------------------------------


def _served(run: Run, loaded: Loaded, view: View) -> list[dict[str, str]]:
    """Complete three held-out functions through the real HTTP API."""
    from danlu.model import Model
    from danlu.serve.client import Client
    from danlu.serve.run import background

    assert run.model is not None
    view.stage("serve", text("demo.serving"))
    answers = []
    with background(Model.from_pretrained(run.model, device.chosen("auto")), run.recipe, Serve(port=0)) as url:
        client = Client(url)
        for number, prompt in enumerate(prompts(run)):
            pieces = client.complete(run.recipe, prompt, max_tokens=96, temperature=0.3, seed=number)
            answers.append({"prompt": prompt, "answer": "".join(pieces)})
            view.progress(number + 1, 3, url)
    return answers


def prompts(run: Run) -> list[str]:
    """Signature and docstring of three short held-out functions."""
    from danlu.data import store

    rows = run.folders["prepare_finetune"] / "rows"
    held_out = sorted(
        {row["prompt"] for row in store.read(rows, "test") if 60 < len(row["prompt"]) < 240}, key=lambda p: (len(p), p)
    )
    return held_out[:: max(1, len(held_out) // 3)][:3]


# --- the end -----------------------------------------------------------------------------------------


def _finish(run: Run, answers: list[dict[str, str]], budget: str, spent: float, view: View) -> None:
    from danlu import report

    files.write_json(run.folder / "answers.json", {"schema": files.SCHEMA, "answers": answers})
    page = report.write(run, answers)
    for answer in answers:
        view.line("")
        view.line(answer["prompt"].rstrip())
        view.line(answer["answer"].rstrip())
    view.line("")
    for line in report.summary(run):
        view.line(line)
    view.line(text("demo.done", spent=f"{spent:.0f}", budget=budget, share=f"{spent / seconds(budget):.0%}"))
    view.line(text("demo.next", model=run.model, report=page, recipe=run.folder.parent.parent / "recipe.toml"))
