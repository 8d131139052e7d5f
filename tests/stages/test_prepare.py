"""The whole stage: nothing is lost or leaked, the result depends on content alone, bad input is one clear line."""

import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from danlu import files, messages
from danlu.config import Data, System
from danlu.data import dedup, filters, ledger, records, shapes, sources, store
from danlu.errors import UserError
from danlu.graph import Silent, View
from danlu.stages import prepare
from tests.tiny_life import RECIPE, life, project

_GOLDEN = "9d246a18e12805b8"
_WORDS = "the old furnace turned raw ore and herbs into gold while the young smith kept his log of every fire".split()  # noqa: SIM905


@dataclass
class _Context:
    config: Any
    out: Path
    raw: tuple[Path, ...] = ()
    inputs: dict[str, Path] = field(default_factory=dict)
    system: System = field(default_factory=System)
    output_hash: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[tuple[float, str]] = field(default_factory=list)
    view: View = field(default_factory=Silent)

    def progress(self, done: float, total: float, note: str = "") -> None:
        self.notes.append((done / total, note))


def _prepare(out: Path, path: Path, *, partitions: int | str = "auto", **data: Any) -> _Context:
    config = Data(path=str(path), **data)
    raw = tuple(sources.discover(config.path, Path("/"), config.exclude))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    context = _Context(config, out, raw, system=System(partitions=partitions))
    prepare.run(context)  # type: ignore[arg-type]
    return context


def _rows(out: Path) -> dict[str, list[dict[str, str]]]:
    return {name: list(store.read(out / "rows", name)) for name in ("train", "valid", "test")}


def _text(number: int) -> str:
    return f"Note {number}: " + " ".join(_WORDS[(number * step + step * step) % len(_WORDS)] for step in range(40))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Forty texts, an exact copy, a near copy, a short one, an empty one, and one to be mended."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = [*(f"{_text(number)} {number * 7919}" for number in range(40)), _text(1) + f" {7919}", "tiny", "  "]
    texts += [
        _text(2) + f" {2 * 7919} indeed",
        "e\u0301te\u0301\r\n" + "A line with\x07 a bell, and a strange end.",
    ]
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[:30]), "utf-8")
    (folder / "b.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[30:]), "utf-8")
    return folder


def test_every_row_is_kept_once_or_dropped_with_a_reason(corpus: Path, tmp_path: Path) -> None:
    _prepare(tmp_path / "out", corpus)
    rows = _rows(tmp_path / "out")
    dropped = list(store.read(tmp_path / "out", "dropped"))
    kept = [row for split in rows.values() for row in split]
    ids = [row["id"] for row in kept + dropped]
    assert len(ids) == len(set(ids)) == 45
    assert Counter(row["reason"] for row in dropped) == {
        "empty": 1,
        "short": 1,
        "exact_duplicates": 1,
        "near_duplicates": 1,
    }
    funnel = files.read_json(tmp_path / "out" / "funnel.json")
    assert funnel["read"] == 45
    assert funnel["steps"][-1]["kept"] == len(kept) == sum(funnel["splits"].values()) == 41
    assert funnel["splits"] == {name: len(split) for name, split in rows.items()}
    assert all(funnel["splits"].values())
    shown = [json.loads(line) for line in (tmp_path / "out" / "dropped_examples.jsonl").read_text("utf-8").splitlines()]
    assert {row["id"] for row in shown} == {row["id"] for row in dropped}
    assert not (tmp_path / "out" / "work").exists()


def test_rows_are_sorted_mended_and_point_to_their_line(corpus: Path, tmp_path: Path) -> None:
    _prepare(tmp_path / "out", corpus)
    for split in _rows(tmp_path / "out").values():
        assert [row["id"] for row in split] == sorted(row["id"] for row in split)
        for row in split:
            name, line = row["source"].split(":")
            raw = json.loads((corpus / name).read_text("utf-8").splitlines()[int(line) - 1])["text"]
            assert row["text"].split()[-1] == raw.split()[-1]
            assert "\r" not in row["text"]
    (example, *_) = files.read_json(tmp_path / "out" / "examples.json")
    assert (example["before"][:4], example["after"][:4]) == ("e\u0301te", "été\n")


def test_clusters_show_the_kept_row_first(corpus: Path, tmp_path: Path) -> None:
    _prepare(tmp_path / "out", corpus)
    clusters = [json.loads(line) for line in (tmp_path / "out" / "clusters.jsonl").read_text("utf-8").splitlines()]
    assert sorted(len(cluster["members"]) for cluster in clusters) == [2, 2]
    assert all(cluster["kept"] == cluster["members"][0]["id"] for cluster in clusters)
    assert sorted(cluster["members"][1]["jaccard"] == 1 for cluster in clusters) == [False, True]


def test_the_result_depends_neither_on_partitions_nor_on_place_or_names(corpus: Path, tmp_path: Path) -> None:
    one = _prepare(tmp_path / "one", corpus, partitions=1).output_hash
    eight = _prepare(tmp_path / "eight", corpus, partitions=8).output_hash
    moved = tmp_path / "elsewhere" / "deep"
    moved.parent.mkdir()
    corpus.rename(moved)
    (moved / "a.jsonl").rename(moved / "z.jsonl")
    assert one == eight == _prepare(tmp_path / "moved", moved).output_hash


def test_the_output_of_this_version_is_the_golden_one(corpus: Path, tmp_path: Path) -> None:
    assert prepare.VERSION == 4
    assert _prepare(tmp_path / "out", corpus).output_hash[:16] == _GOLDEN


def test_a_changed_step_changes_the_result(corpus: Path, tmp_path: Path) -> None:
    first = _prepare(tmp_path / "out", corpus).output_hash
    assert _prepare(tmp_path / "out", corpus, clean=["normalize", "drop_empty"]).output_hash != first
    assert _prepare(tmp_path / "out", corpus, split={"valid": 0.2, "test": 0.1}).output_hash != first


def test_nothing_held_out_is_like_a_row_of_training(shared_data: Path, tmp_path: Path) -> None:
    _prepare(tmp_path / "out", shared_data / "zh_neardup_poems" / "docs.jsonl.gz", dedup={"threshold": 0.5})
    rows = [row for split in _rows(tmp_path / "out").values() for row in split]
    assert len(rows) > 1000
    found = dedup.duplicates([row["id"] for row in rows], [row["text"] for row in rows], threshold=0.5)
    assert found.pairs == []


def test_progress_rises_to_the_end(corpus: Path, tmp_path: Path) -> None:
    shares = [share for share, _ in _prepare(tmp_path / "out", corpus).notes]
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("name", ["tinyshakespeare/input.txt", "zh_classic_novels/红楼梦.txt"])
def test_a_book_loses_nothing(shared_data: Path, tmp_path: Path, name: str) -> None:
    _prepare(tmp_path / "out", shared_data / name)
    rows = [row for split in _rows(tmp_path / "out").values() for row in split]
    assert 150 < len(rows) < 300
    kept = "".join("".join(row["text"].split()) for row in sorted(rows, key=lambda row: row["id"]))
    assert kept == "".join((shared_data / name).read_text("utf-8").split())


def test_chats_of_two_shapes_become_one(shared_data: Path, tmp_path: Path) -> None:
    _prepare(tmp_path / "out", shared_data / "instruct_demo" / "*.json")
    rows = _rows(tmp_path / "out")["train"]
    assert rows[0].keys() == {"id", "source", "text", "messages"}
    assert len({row["source"].split(":")[0] for row in rows}) == 5
    assert all(shapes.plain(shapes.loaded(row)) == row["text"] for row in rows)


# --- derived rows ------------------------------------------------------------------------------------


def _derived(out: Path, prepared: Path, name: str) -> _Context:
    out.mkdir()
    context = _Context({"derive": name}, out, inputs={"rows": prepared})
    prepare.run(context)  # type: ignore[arg-type]
    return context


def test_functions_stay_in_the_split_of_their_file(tmp_path: Path) -> None:
    source = Path(json.__file__).parent
    _prepare(tmp_path / "out", source, split={"valid": 0.2, "test": 0.2})
    _derived(tmp_path / "pairs", tmp_path / "out", "python_functions")
    files_of = {name: {row["id"] for row in rows} for name, rows in _rows(tmp_path / "out").items()}
    pairs = _rows(tmp_path / "pairs")
    assert sum(map(len, pairs.values())) >= 10
    assert all(row["id"].split("#")[0] in files_of[name] for name, rows in pairs.items() for row in rows)
    row = next(row for rows in pairs.values() for row in rows)
    assert row.keys() == {"id", "source", "text", "prompt", "completion"}


def test_same_rows_keep_ids_splits_and_content(shared_data: Path, tmp_path: Path) -> None:
    _prepare(tmp_path / "out", shared_data / "instruct_demo" / "alpaca_zh_demo.json")
    _derived(tmp_path / "same", tmp_path / "out", "same_rows")
    assert _rows(tmp_path / "same") == _rows(tmp_path / "out")


# --- bad input ---------------------------------------------------------------------------------------


def _fails(tmp_path: Path, name: str, content: str | bytes, **data: Any) -> UserError:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        _prepare(tmp_path / "out", path, **data)
    assert caught.value.exit == 3
    assert caught.value.render().startswith(f"error[{caught.value.code}]: ")
    return caught.value


def _jsonl(good: int, bad: int, broken: str = '{"text": "half') -> str:
    return "\n".join([*(json.dumps({"text": f"{_text(n)} {n * 7919}"}) for n in range(good)), *[broken] * bad])


@pytest.mark.parametrize("content", ["", "\n \n\n", "text\n"])
@pytest.mark.parametrize(("name", "code"), [("a.txt", "E204"), ("a.jsonl", "E208"), ("a.csv", "E222")])
def test_no_usable_row(tmp_path: Path, name: str, code: str, content: str) -> None:
    error = _fails(tmp_path, name, content)
    assert error.code == (code if content == "text\n" else "E222")
    assert error.code != "E222" or error.evidence == (f"{name}: {len(content)} B, {error.evidence[0].split()[-1]}",)


def test_rows_that_all_go_are_counted_by_step(tmp_path: Path) -> None:
    error = _fails(tmp_path, "a.jsonl", "\n".join(json.dumps({"text": text}) for text in ("", " ", "tiny")))
    assert (error.code, error.fields["read"], error.evidence) == ("E204", 3, ("empty: 2", "too short: 1"))


def test_every_step_has_words_in_both_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    for language in messages.LANGUAGES:
        monkeypatch.setenv("DANLU_LANG", language)
        for step in ("read", records.BAD, *filters.FILTERS, ledger.EXACT, ledger.NEAR):
            assert messages.text(f"data.step.{step}")


def test_a_missing_column_shows_what_there_is_and_the_fix(tmp_path: Path) -> None:
    error = _fails(tmp_path, "a.csv", "id,review\n1,物流很快\n2,包装完好\n", columns={"text": "comment"})
    assert (error.code, error.fields["column"], error.fields["best"]) == ("E201", "comment", "review")
    assert "data.columns.text=review" in error.render()
    assert "物流很快" in error.render()


def test_one_broken_line_is_named(tmp_path: Path) -> None:
    error = _fails(tmp_path, "a.jsonl", _jsonl(30, 1))
    assert (error.code, error.where) == ("E208", "a.jsonl:31")


def test_many_broken_lines_are_counted_and_ten_shown(tmp_path: Path) -> None:
    error = _fails(tmp_path, "a.jsonl", _jsonl(300, 12))
    assert (error.code, error.fields["bad"], error.fields["read"], len(error.evidence)) == ("E209", 12, 312, 10)


def test_skipped_lines_are_put_aside_up_to_a_share(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(_jsonl(99, 1, '{"text": "\\ud800"}'))
    _prepare(tmp_path / "out", path, bad_records="skip")
    dropped = list(store.read(tmp_path / "out", "dropped"))
    assert [(row["source"], row["reason"]) for row in dropped if row["reason"] == "surrogate"] == [
        ("a.jsonl:100", "surrogate")
    ]
    assert _fails(tmp_path, "b.jsonl", _jsonl(90, 10), bad_records="skip").code == "E209"


def test_mixed_encodings_are_named_by_line(tmp_path: Path) -> None:
    good = "第一回　甄士隐梦幻识通灵\n"
    error = _fails(tmp_path, "a.txt", good.encode() * 300 + "物流很快\n".encode("gb18030") + good.encode())
    assert (error.code, error.where) == ("E205", "a.txt:301")


def test_a_line_of_a_hundred_megabytes_is_refused(tmp_path: Path) -> None:
    assert _fails(tmp_path, "a.txt", b"short\n" + b"x" * 10**8).where == "a.txt:2"


def test_texts_and_chats_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(_text(1))
    (tmp_path / "in" / "b.jsonl").write_text(json.dumps({"instruction": "x", "output": "y"}))
    with pytest.raises(UserError, match=r"a\.txt is text"):
        _prepare(tmp_path / "out", tmp_path / "in")


def test_an_unknown_step_is_refused(tmp_path: Path) -> None:
    assert _fails(tmp_path, "a.txt", _text(1), clean=["drop_shorts"]).code == "E211"


def test_rows_to_tune_on_are_mended_by_keys_of_their_own_section(tmp_path: Path) -> None:
    """Both where a stage looks before anything slow, and where one runs; a file may be called as a key is."""
    recipe = project(tmp_path / "tiny", RECIPE + '\n[finetune]\ndata = "data.columns.jsonl"\n')
    path = recipe.parent / "data.columns.jsonl"
    path.write_text('{"question": "a", "reply": "b c d"}\n' * 3)
    with pytest.raises(UserError) as caught:
        life(recipe).run(Silent())
    said = caught.value.render()
    assert caught.value.code == "E201"
    assert re.search(r"finetune\.columns\.\w+=", said)
    assert "data.columns.jsonl" in said
    path.write_text(
        '{"prompt": "a", "completion": "b"}\n' * 9 + "no JSON at all\n" + '{"prompt": "a", "completion": "b"}\n' * 20
    )
    with pytest.raises(UserError) as caught:
        life(recipe).run(Silent())
    assert "finetune.bad_records" in caught.value.render()
