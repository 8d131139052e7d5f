"""The report of a run: one static page that needs nothing but itself, and the same figures for the terminal."""

import base64
import html
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from danlu import __version__, charts, files, messages, verdicts
from danlu import page as standing
from danlu.artifact import Lineage
from danlu.figures import Figures, Row, duration, figures, short, summary, table, trainings
from danlu.graph import Run
from danlu.messages import text
from danlu.verdicts import shown

__all__ = ["summary", "write"]
_LONGEST = 1500  # characters of a sample


def write(run: Run, answers: list[dict[str, str]] | None = None) -> Path:
    """Write report.html into the run's folder, in the language in force; `answers` are {"prompt", "answer"}."""
    path = run.folder / "report.html"
    files.write_text(path, page(run, _answers(run) if answers is None else answers))
    return path


def _answers(run: Run) -> list[dict[str, str]]:
    path = run.folder / "answers.json"
    return list(files.read_json(path)["answers"]) if path.exists() else []


def page(run: Run, answers: list[dict[str, str]]) -> str:
    """The whole page."""
    found = figures(run)
    body = [*_head(run), *_tiles(run, found), *_models(found), *_verdicts(run), *_losses(run), *_funnels(run)]
    body += [*_samples(run, answers), *_lineage(run), *_recipe(run)]
    style = Path(__file__).with_suffix(".css").read_text("utf-8")
    return standing.page(run.name, "\n".join(body), style)


# --- what was made -----------------------------------------------------------------------------------


def _head(run: Run) -> Iterator[str]:
    kicker = f"{text('report.kicker', number=run.number)} · {run.at}"
    yield f'<header><p class="kicker">{shown(kicker)}</p><h1>{shown(run.recipe)}</h1>'
    yield f'<p class="lead">{_lead(run)}</p></header>'


def _lead(run: Run) -> str:
    """One sentence of what came out; of data alone where nothing was trained."""
    trained = trainings(run)
    if not trained:
        funnel = table(run, "prepare", "funnel.json")
        kept = sum(funnel.get("splits", {}).values())
        return text("report.lead_data", kept=_bold(f"{kept:,}"), read=f"{funnel.get('read', 0):,}")
    facts = next(iter(trained.values())).facts
    return text(
        "report.lead", parameters=_bold(short(facts.get("parameters", 0))), depth=facts.get("depth", "?"),
        tokens=_bold(short(sum(each.facts.get("tokens", 0) for each in trained.values()))),
        time=_bold(duration(sum(each.facts.get("training_seconds", 0) for each in trained.values()))),
    )  # fmt: skip


def _bold(value: str) -> str:
    return f"<b>{html.escape(value)}</b>"


def _tiles(run: Run, found: Figures) -> Iterator[str]:
    """The four figures that a reader looks for first."""
    model = "base" if found.value("held_out", "loss", "base") is not None else found.last
    notes = {
        "bits_per_byte": _against_baseline(found, model),
        "perplexity": _against_base(found, "perplexity"),
        "token_accuracy": _against_base(found, "token_accuracy"),
        **{name: _beside(found, name) for name in ("entity_f1", "relation_f1", "answer_f1", "exact_match")},
        **{name: _beside(found, name) for name in ("accuracy", "macro_f1", "recall_at_1")},
    }
    tiles = [_tile(found, name, model, note) for name, note in notes.items()] + [_int8(run)]
    if any(tiles):
        yield f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(found: Figures, name: str, model: str, note: str) -> str:
    row = found.row("held_out", name)
    if row is None or model not in row.values:
        return ""
    return _card(row.cell(model), f"{row.label} · {found.columns[model]}", note)


def _against_baseline(found: Figures, model: str) -> str:
    ours, theirs = (found.value("held_out", "bits_per_byte", column) for column in (model, found.baseline))
    if not ours or not theirs:
        return ""
    better = "below" if ours < theirs else "above"
    return text(f"report.{better}", share=f"{abs(1 - ours / theirs):.0%}", other=found.columns[found.baseline])


def _beside(found: Figures, name: str) -> str:
    """Beside the simple model of the same rows."""
    values = {column: found.value("held_out", name, column) for column in found.columns}
    simple = {column: value for column, value in values.items() if column not in ("base", "tuned", "int8")}
    column, other = next(((column, value) for column, value in simple.items() if value is not None), ("", 0.0))
    return text("report.beside", value=f"{other:.1%}", other=found.columns[column]) if column else ""


def _against_base(found: Figures, name: str) -> str:
    """How the answers changed by tuning."""
    before, after = (found.value("answers", name, column) for column in ("base", "tuned"))
    if before is None or after is None:
        return ""
    form = "{:.1%}" if name == "token_accuracy" else "{:,.1f}"
    return text("report.tuning", before=form.format(before), after=form.format(after))


def _int8(run: Run) -> str:
    compared = table(run, "compress", "compare.json")
    if not compared:
        return ""
    before, after = compared["before"], compared["after"]
    times = after["tokens_per_second"] / before["tokens_per_second"]
    note = text("report.int8_note", before=f"{before['megabytes']:,.1f}", times=f"{times:.2f}")
    return _card(f"{after['megabytes']:,.1f} MB", text("report.int8_size"), note)


def _card(figure: str, name: str, note: str) -> str:
    small = f"<small>{html.escape(note)}</small>" if note else ""
    return f'<div class="tile"><b>{figure}</b><span>{name}</span>{small}</div>'


def _heading(key: str, **fields: Any) -> str:
    """A section's title and the line below it."""
    about = key.removesuffix("_title") + "_about"
    return f'<h2>{text(f"report.{key}")}</h2><p class="about">{text(f"report.{about}", **fields)}</p>'


def _legend(items: Iterable[tuple[str, str]]) -> str:
    """What the colours mean: (style class, words)."""
    return f'<ul class="legend">{"".join(f"<li><i class={style}></i>{words}</li>" for style, words in items)}</ul>'


# --- the models side by side -------------------------------------------------------------------------


def _models(found: Figures) -> Iterator[str]:
    if not found.rows:
        return
    yield _heading("models" if found.split != "train" else "models_seen")
    yield '<div class="scroll"><table><thead><tr><th></th>'
    yield from (f'<th scope="col">{shown(name)}</th>' for name in found.columns.values())
    yield "</tr></thead><tbody>"
    group = "made"
    for row in found.rows:
        if row.group != group:
            title = text(f"report.{row.group}", split=text(f"report.split.{found.split}"))
            yield f'<tr class="group"><th colspan="{len(found.columns) + 1}">{title}</th></tr>'
        group = row.group
        cells = "".join(_cell(row, column) for column in found.columns)
        yield f'<tr><th scope="row">{row.label}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _cell(row: Row, column: str) -> str:
    """A figure, and below it between what ends it lies."""
    ends = f"<br><small>{row.ends(column)}</small>" if row.ends(column) else ""
    return f"<td{_best(row.is_best(column))}>{row.cell(column)}{ends}</td>"


def _verdicts(run: Run) -> Iterator[str]:
    """What models that judge rows got right and wrong."""
    measured, flipped = table(run, "evaluate", "metrics.json"), table(run, "evaluate", "flips.json")
    yield from verdicts.confusion(measured.get("confusion", {}))
    yield from verdicts.worst(table(run, "evaluate", "errors.json") or ())
    for found, flips in zip(measured.get("comparisons", ()), flipped or (), strict=False):
        yield from verdicts.comparison(found, flips)


def _best(best: bool) -> str:
    return ' class="best"' if best else ""


# --- the loss ----------------------------------------------------------------------------------------


def _losses(run: Run) -> Iterator[str]:
    drawn = [part for name in ("pretrain", "finetune") if name in run.folders for part in _loss(run, name)]
    if drawn:
        yield _heading("loss")
        yield _legend([("s1", text("report.train")), ("s2", text("report.held_out_loss"))])
        yield from drawn


def _loss(run: Run, name: str) -> Iterator[str]:
    train, held_out = losses(run.folders[name] / "metrics.jsonl")
    if len(train) < 2:
        return
    facts = Lineage.read(run.folders[name]).facts
    guess = math.log(facts["choices"]) if facts.get("choices", 0) > 1 else None
    about = text(
        "report.training",
        steps=f"{facts.get('steps', 0):,}",
        tokens=short(facts.get("tokens", 0)),
        counted=text(f"counted.{facts.get('counted', 'tokens')}"),
        time=duration(facts.get("training_seconds", 0)),
        speed=f"{facts.get('tokens_per_second', 0):,.0f}",
    )
    labels = {"title": name, "steps": text("report.steps"), "held_out": text("report.held_out_loss"),
              "start": text("report.guess", loss=f"{guess or 0:.2f}")}  # fmt: skip
    yield f"<h3>{name} <span>{about}</span></h3>"
    yield f'<div class="scroll">{charts.curve(train, held_out, guess, labels=labels)}</div>'


def losses(log: Path) -> tuple[list[charts.Point], list[charts.Point]]:
    """(step, loss) of training and of the held-out rows; figures that are none are left out."""
    train: list[charts.Point] = []
    held_out: list[charts.Point] = []
    for line in log.read_text("utf-8").splitlines() if log.exists() else []:
        entry = json.loads(line)
        looked = entry.get("validation")
        loss = next(iter(looked.values()), None) if looked else entry.get("loss")
        if loss is not None and math.isfinite(loss):
            (held_out if looked else train).append((float(entry["step"]), float(loss)))
    return train, held_out


# --- the data ----------------------------------------------------------------------------------------


def _funnels(run: Run) -> Iterator[str]:
    stages = [name for name in ("prepare", "prepare_finetune") if table(run, name, "funnel.json")]
    if stages:
        yield _heading("data")
    for name in stages:
        yield from _funnel(name, table(run, name, "funnel.json"))


def _funnel(name: str, funnel: dict[str, Any]) -> Iterator[str]:
    left = sum(funnel["splits"].values())
    about = text("report.rows", size=f"{funnel['bytes'] / 1e6:,.1f}", read=f"{funnel['read']:,}", kept=f"{left:,}")
    rows = [(text("data.step.read"), float(funnel["read"]), 0.0, f"{funnel['read']:,}")]
    rows += [_lost(step) for step in funnel["steps"] if step["dropped"]]
    idle = [_step(step["name"]) for step in funnel["steps"] if not step["dropped"]]
    yield f'<h3>{name} <span>{about}</span></h3><div class="scroll">{charts.bars(rows)}</div>'
    if idle:
        yield f'<p class="about">{text("report.nothing", names=html.escape(text("report.comma").join(idle)))}</p>'
    shares = [(style, count, _counted(split, count, left)) for style, split, count in _splits(funnel)]
    yield f'<div class="scroll">{charts.stacked(shares)}</div>'
    yield _legend((style, says) for style, _, says in shares)


def _lost(step: dict[str, Any]) -> tuple[str, float, float, str]:
    return _step(step["name"]), float(step["kept"]), float(step["dropped"]), f"{step['kept']:,}  −{step['dropped']:,}"


def _splits(funnel: dict[str, Any]) -> list[tuple[str, str, int]]:
    """(style class, split, rows) of each split."""
    styles = {"train": "s4", "valid": "s2", "test": "s1"}
    return [(style, name, funnel["splits"].get(name, 0)) for name, style in styles.items()]


def _counted(split: str, count: int, left: int) -> str:
    return f"{text(f'data.view.{split}')}: {count:,} ({count / max(left, 1):.1%})"


def _step(name: str) -> str:
    return text(f"data.step.{name}") if messages.find(f"data.step.{name}") else name


# --- what it says ------------------------------------------------------------------------------------


def _samples(run: Run, answers: Sequence[dict[str, str]]) -> Iterator[str]:
    if (made := run.folders.get("evaluate", run.folder) / "samples.png").exists():
        yield _heading("pictures")
        yield _picture(made)
    if answers:
        yield _heading("answers_title")
        yield from (_said(each["prompt"], each["answer"]) for each in answers)
    if continued := table(run, "evaluate", "samples.json"):
        yield _heading("samples")
        yield from (_said(each["prompt"], each["text"]) for each in continued)


def _picture(path: Path) -> str:
    """A picture inside the page, its pixels as they are and twice as large."""
    written = base64.b64encode(path.read_bytes()).decode("ascii")
    named = text("report.pictures")
    return f'<figure><img class="pixels" src="data:image/png;base64,{written}" alt="{named}"></figure>'


def _said(given: str, made: str) -> str:
    made = made if len(made) <= _LONGEST else made[:_LONGEST] + " …"
    spans = f'<span class="given">{shown(given)}</span><span class="made">{shown(made)}</span>'
    return f"<figure><pre>{spans}</pre></figure>"


# --- where it comes from -----------------------------------------------------------------------------


def _lineage(run: Run) -> Iterator[str]:
    stages = {name: Lineage.read(folder) for name, folder in run.folders.items() if folder.exists()}
    if not stages:
        return
    longest = max(each.made.get("seconds", 0) for each in stages.values()) or 1
    whole = duration(sum(each.made.get("seconds", 0) for each in stages.values()))
    yield _heading("lineage", time=whole)
    names = ("stage", "reads", "key", "output", "files", "time")
    yield '<div class="scroll"><table class="words"><thead><tr>'
    yield "".join(f"<th{_right(name)}>{text(f'report.{name}')}</th>" for name in names)
    yield "</tr></thead><tbody>"
    yield from (_stage(name, each, longest) for name, each in stages.items())
    yield "</tbody></table></div>"
    yield from _raw(stages.values())


def _right(name: str) -> str:
    return ' class="right"' if name in ("files", "time") else ""


def _stage(name: str, lineage: Lineage, longest: float) -> str:
    seconds = lineage.made.get("seconds", 0)
    reads = (
        ", ".join((parent["folder"].rpartition("-")[0] or parent["folder"]) for parent in lineage.inputs.values())
        or "—"
    )
    cells = [f"<td><b>{shown(name)}</b></td>", f"<td>{shown(reads)}</td>"]
    cells += [f'<td class="mono">{shown(each[:12])}</td>' for each in (lineage.key, lineage.output_hash)]
    cells.append(f'<td class="right">{len(lineage.files) or "—"}</td>')
    cells.append(f'<td class="right time">{duration(seconds)}<i style="width:{100 * seconds / longest:.0f}%"></i></td>')
    return f"<tr>{''.join(cells)}</tr>"


def _raw(lineages: Iterable[Lineage]) -> Iterator[str]:
    """The raw files with their hashes, and the libraries, folded away."""
    lineages = list(lineages)
    raw = {name: digest for lineage in lineages for name, digest in lineage.files.items()}
    if raw:
        lines = "\n".join(f"{digest[:16]}  {shown(name)}" for name, digest in sorted(raw.items()))
        yield f"<details><summary>{text('report.raw', n=f'{len(raw):,}')}</summary><pre>{lines}</pre></details>"
    made = {name: value for name, value in lineages[-1].made.items() if value and name not in ("at", "seconds")}
    lines = "\n".join(f"{name:12} {shown(value)}" for name, value in made.items())
    yield f"<details><summary>{text('report.libraries')}</summary><pre>{lines}</pre></details>"


def _recipe(run: Run) -> Iterator[str]:
    path = run.folder / "recipe.toml"
    if path.exists():
        yield _heading("recipe")
        yield f"<details><summary>recipe.toml</summary><pre>{shown(path.read_text('utf-8'))}</pre></details>"
    if run.model:
        folder = f"{run.runs.name}/{run.name}"  # as seen from the recipe's folder: a page names no place on a disk
        said = "\n".join(f"danlu {verb} {folder}" for verb in ("chat", "serve", "predict"))
        yield f'<h2>{text("report.next")}</h2><pre class="next">{shown(said)}</pre>'
    made_by = text("report.made_by", version=__version__, at=time.strftime("%Y-%m-%d %H:%M"))
    yield f"<footer>{made_by}</footer>"
