"""What is shown of a prepared folder, in both languages, and that text cannot steer the terminal."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from danlu.data import view


def _printed(*parts: RenderableType) -> str:
    console = Console(width=120, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    steps = [
        {"name": "drop_short", "dropped": 3, "kept": 1234},
        {"name": "near_duplicates", "dropped": 34, "kept": 1200},
    ]
    counts = {
        "schema": 1,
        "read": 1237,
        "bytes": 2_500_000,
        "steps": steps,
        "splits": {"train": 1100, "valid": 50, "test": 50},
    }
    examples = [{"id": "1", "source": "a.txt:7", "before": "one\r\ntwo\x1b[2J", "after": "one\ntwo[2J"}]
    members = [
        {"id": "1", "source": "a.txt:7", "text": "满纸荒唐言", "jaccard": None},
        {"id": "2", "source": "b.txt:9", "text": "满纸荒誕言", "jaccard": 0.81},
    ]
    (tmp_path / "funnel.json").write_text(json.dumps(counts))
    (tmp_path / "examples.json").write_text(json.dumps(examples))
    (tmp_path / "clusters.jsonl").write_text(json.dumps({"kept": "1", "members": members}) + "\n")
    return tmp_path


def test_everything_is_shown(prepared: Path) -> None:
    shown = _printed(*view.render(prepared))
    for part in ("1,237", "1,200", "2.50 MB", "near copies", "a.txt:7", "b.txt:9", "满纸荒誕言", "81% alike"):
        assert part in shown
    assert "\x1b" not in shown


def test_it_speaks_chinese(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_LANG", "zh")
    shown = _printed(*view.render(prepared))
    assert "近似重复" in shown
    assert "near copies" not in shown


def test_differing_characters_are_marked_and_no_others() -> None:
    text = view.marked("满纸荒誕言啊", "满纸荒唐言", "red")
    assert text.plain == "满纸荒誕言啊"
    assert [(span.start, span.end) for span in text.spans] == [(3, 4), (5, 6)]
    assert view.marked("same", "same", "red").spans == []


def test_the_contents_are_what_the_files_hold(prepared: Path) -> None:
    found = view.contents(prepared)
    assert (found["funnel"]["read"], found["examples"][0]["source"]) == (1237, "a.txt:7")
    assert [len(cluster["members"]) for cluster in found["clusters"]] == [2]
