"""The report: from the files of a run to a page that is whole, safe and right, and the same figures in a terminal."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from danlu import charts, files, messages, report
from danlu.artifact import Lineage
from danlu.figures import aligned, duration, figures, short, width
from danlu.graph import STORE, Run

NASTY = '<script>alert("x")</script>\x00&amp;\x1b[31m 炼丹'
MADE = {"at": "2026-01-05 10:00:00", "danlu": "0.1.0", "python": "3.11.7", "machine": "x86_64", "torch": "2.13.0"}
TRAINED = {"steps": 400, "tokens": 3_276_800, "training_seconds": 171.2, "tokens_per_second": 19140.0,
           "parameters": 12_583_936, "depth": 6, "width": 384, "vocabulary": 8192}  # fmt: skip
TUNED = {"steps": 120, "tokens": 491_520, "training_seconds": 47.0}
INPUTS = {
    "prepare": {},
    "encode": {"rows": "prepare"},
    "pretrain": {"columns": "encode"},
    "prepare_finetune": {"rows": "prepare"},
    "encode_finetune": {"rows": "prepare_finetune", "tokenizer": "encode"},
    "finetune": {"columns": "encode_finetune", "base": "pretrain"},
    "evaluate": {"base": "pretrain", "tuned": "finetune", "columns": "encode"},
    "compress": {"model": "finetune"},
}
SECONDS = {"prepare": 4.1, "encode": 6.8, "pretrain": 172.0, "finetune": 48.3, "evaluate": 11.0, "compress": 9.2}


def _log(steps: int, start: float, end: float, every: int) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = end + (start - end) * math.exp(-7 * step / steps)
        lines.append({"step": step, "loss": loss + 0.5 * (step * step * 0.618 % 1 - 0.5), "lr": 1e-3})
        if step % every == 0:
            lines.append({"step": step, "validation": {"loss": loss + 0.08, "perplexity": math.exp(loss)}})
    return lines


def _tables() -> dict[str, dict[str, Any]]:
    """What the stages write, by stage and file."""
    steps = [
        ("bad_records", 0, 558),
        ("drop_empty", 3, 555),
        ("drop_long_lines", 24, 531),
        ("near_duplicates", 61, 470),
    ]
    funnel = {"schema": 1, "read": 558, "bytes": 9_999_732, "splits": {"train": 430, "valid": 14, "test": 26},
              "steps": [{"name": name, "dropped": gone, "kept": kept} for name, gone, kept in steps]}  # fmt: skip
    pairs = {"schema": 1, "read": 9214, "bytes": 2_400_000, "splits": {"train": 8120, "valid": 260, "test": 514},
             "steps": [{"name": "exact_duplicates", "dropped": 320, "kept": 8894}]}  # fmt: skip
    metrics = {"schema": 1, "split": "test", "models": {
        "5-gram": {"bits_per_byte": 2.104},
        "base": {"loss": 3.912, "perplexity": 50.0, "token_accuracy": 0.381, "bits_per_byte": 1.672},
        "tuned": {"loss": 4.05, "perplexity": 57.4, "token_accuracy": 0.37, "bits_per_byte": 1.731}},
        "answers": {
            "base": {"loss": 4.4, "perplexity": 81.5, "token_accuracy": 0.301, "bits_per_byte": 1.9},
            "tuned": {"loss": 3.6, "perplexity": 36.6, "token_accuracy": 0.42, "bits_per_byte": 1.5}}}  # fmt: skip
    before = {"megabytes": 50.3, "tokens_per_second": 212.0, "loss": 3.6, "perplexity": 36.6}
    after = {"megabytes": 15.9, "tokens_per_second": 301.0, "loss": 3.61, "perplexity": 36.9, "token_accuracy": 0.419}
    body = '    """Read a configuration file."""\n    with open(path) as file:\n        return json.load(file)\n'
    samples = [
        {"prompt": "def read_config(path):\n", "text": body},
        {
            "prompt": "class Reader:\n    def __init__(self",
            "text": f", source):\n        self.source = source  # {NASTY}\n",
        },
    ]
    return {
        "prepare": {"funnel.json": funnel},
        "prepare_finetune": {"funnel.json": pairs},
        "compress": {"compare.json": {"schema": 1, "before": before, "after": after}},
        "evaluate": {"metrics.json": metrics, "samples.json": samples},
    }


def make_run(root: Path, stages: tuple[str, ...] = tuple(INPUTS)) -> Run:
    """A run's folders as the stages leave them."""
    folders = {name: root / STORE / f"{name}-0123456789abcdef" for name in stages}
    for name, folder in folders.items():
        inputs = {
            role: {"folder": f"{parent}-0123456789abcdef", "output_hash": "ab" * 32}
            for role, parent in INPUTS[name].items()
        }
        raw = {f"lib/module_{n}.py": f"{n:064x}" for n in range(12)} if name == "prepare" else {}
        facts = {"pretrain": TRAINED, "finetune": TRAINED | TUNED}.get(name, {})
        made = MADE | {"seconds": SECONDS.get(name, 0.8)}
        Lineage(name, name.split("_")[0], 1, "c0ffee" * 3, {}, inputs, raw, "5eed" * 16, made, dict(facts)).write(
            folder
        )
        for file, table in _tables().get(name, {}).items():
            files.write_json(folder / file, table)
    for name, log in (("pretrain", _log(400, 9.2, 3.7, 40)), ("finetune", _log(120, 4.6, 3.5, 20))):
        if name in folders:
            files.write_text(folders[name] / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in log))
    run = Run(root, "stdlib", 3, folders, at="2026-01-05 10:05:00")
    files.write_text(run.folder / "recipe.toml", f'task = "language_modeling"\n[pretrain]\nsample = "{NASTY[:20]}"\n')
    return run


@pytest.fixture(params=messages.LANGUAGES)
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DANLU_LANG", request.param)
    return str(request.param)


class _Page(HTMLParser):
    """Checks that tags close in order, and collects what a page holds."""

    VOID = ("meta", "br")

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself(tmp_path: Path, language: str) -> None:
    path = report.write(make_run(tmp_path), [{"prompt": "def f():\n", "answer": NASTY}])
    page = path.read_text("utf-8")
    parsed = _Page(page)
    assert not {"script", "link", "img", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    assert not [
        value
        for _, given in parsed.tags
        for name, value in given.items()
        if name in ("src", "href", "srcset") or name.startswith("on")
    ]
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page
    assert "default-src 'none'" in page
    assert f'<html lang="{"zh-CN" if language == "zh" else "en"}">' in page


def test_text_of_users_and_models_stays_text(tmp_path: Path) -> None:
    page = report.page(make_run(tmp_path), [{"prompt": NASTY, "answer": NASTY}])
    assert page.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;␀&amp;amp;␛[31m 炼丹") == 3
    assert "\x00" not in page and "\x1b" not in page
    assert report.shown("\udc80") == "?"


def test_the_figures_are_those_of_the_stages(tmp_path: Path, language: str) -> None:
    found = figures(make_run(tmp_path))
    assert list(found.columns) == ["5-gram", "base", "tuned", "int8"]
    assert found.value("held_out", "bits_per_byte", "5-gram") == 2.104
    assert found.value("held_out", "perplexity", "int8") is None, "int8 was measured on answers only"
    assert found.value("answers", "perplexity", "int8") == 36.9
    best = {(row.group, row.label): [c for c in found.columns if row.is_best(c)] for row in found.rows}
    assert best["held_out", messages.text("metrics.bits_per_byte")] == ["base"]
    assert best["answers", messages.text("metrics.token_accuracy")] == ["tuned"]
    assert best["use", messages.text("report.megabytes")] == ["int8"]
    assert best["made", messages.text("report.parameters")] == []


def test_the_page_shows_what_happened(tmp_path: Path) -> None:
    page = report.page(make_run(tmp_path), [{"prompt": "def add(a, b):\n", "answer": "    return a + b\n"}])
    assert "12.6M" in page and "1.672" in page and "21% below the 5-gram model" in page
    assert page.count("<svg") == 2 + 2 * 2, "two losses, two funnels with their splits"
    assert "return a + b" in page and "read_config" in page and "module_11.py" in page and "5eed5eed5eed" in page
    assert "near copies" in page and "−61" in page
    assert page.count("<circle") == 10 + 6


@pytest.mark.parametrize("count", range(len(INPUTS) + 1))
def test_a_run_that_stopped_early_has_a_report(tmp_path: Path, count: int, language: str) -> None:
    run = make_run(tmp_path, tuple(INPUTS)[:count])
    _Page(report.page(run, []))
    assert bool(report.summary(run)) == (count > 2)


def test_a_run_that_only_tunes_a_given_model(tmp_path: Path) -> None:
    run = make_run(tmp_path, ("prepare", "encode", "finetune"))
    assert list(figures(run).columns) == ["base"]
    _Page(report.page(run, []))


def test_a_folder_that_was_cleared_away_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    files.remove(run.folders["pretrain"])
    assert list(figures(run).columns) == ["5-gram", "base", "tuned", "int8"]
    _Page(report.page(run, []))


def test_a_figure_that_is_none_is_a_dash(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    path = run.folders["evaluate"] / "metrics.json"
    table = files.read_json(path)
    table["models"]["base"]["perplexity"] = None
    files.write_json(path, table)
    row = next(row for row in figures(run).rows if row.group == "held_out" and row.label == "perplexity")
    assert row.cell("base") == "—"
    _Page(report.page(run, []))


def test_the_summary_is_aligned(tmp_path: Path, language: str) -> None:
    lines = report.summary(make_run(tmp_path))
    full = [line for line in lines if re.search(r"\s(—|[\d.,]+( MB|%|M)?)$", line)]
    assert len(full) > 8
    assert len({width(line) for line in full}) == 1, "\n".join(lines)


def test_chinese_takes_two_columns() -> None:
    assert width("困惑度 ab") == 9
    assert width("e\u0301") == 1
    assert aligned([["", "模型"], ["损失", "1"], ["loss", "12"]]) == ["      模型", "损失     1", "loss    12"]


def test_numbers_are_short() -> None:
    assert [short(n) for n in (0, 999, 1000, 12_583_936, 999_600, 1_500_000_000)] == [
        "0",
        "999",
        "1k",
        "12.6M",
        "1,000k",
        "1.5G",
    ]
    assert [duration(s) for s in (3.21, 42, 171.2, 7200)] == ["3.2 s", "42 s", "2.9 min", "2.0 h"]


def test_ticks_are_round_and_inside() -> None:
    for low, high in ((0.0, 1.0), (3.6, 9.4), (0.0, 12345.0), (-0.001, 0.0042)):
        found = charts.ticks(low, high, 5)
        assert 3 <= len(found) <= 6
        assert low <= found[0] and found[-1] <= high


def test_thinning_keeps_the_mean() -> None:
    points = [(float(n), float(n % 7)) for n in range(5000)]
    thin = charts.thinned(points, 400)
    assert len(thin) <= 400
    assert sum(y for _, y in thin) / len(thin) == pytest.approx(sum(y for _, y in points) / 5000, abs=0.02)


def test_smoothing_a_constant_changes_nothing() -> None:
    assert [y for _, y in charts.smoothed([(float(n), 2.5) for n in range(500)])] == pytest.approx([2.5] * 500)


def test_smoothing_an_early_slope_does_not_lag() -> None:
    slope = [(float(n), 3.0 * n) for n in range(500)]
    assert [y for _, y in charts.smoothed(slope)][:480] == pytest.approx([y for _, y in slope][:480])


def test_figures_on_rows_that_were_trained_on_say_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert "no model was trained on" in report.page(run, [])
    path = run.folders["evaluate"] / "metrics.json"
    files.write_json(path, files.read_json(path) | {"split": "train"})
    assert "no model was trained on" not in report.page(run, [])


def test_a_curve_of_equal_losses_can_be_drawn() -> None:
    labels = {"title": "", "steps": "", "held_out": "", "start": ""}
    assert "nan" not in charts.curve([(1, 2.0), (2, 2.0)], [], None, labels=labels)
