"""Texts with entities: columns of tags in every scheme, lists, spans; what is broken is named with its line."""

import json
from pathlib import Path

import pytest

from danlu.data import filters, formats, records, shapes, sources
from danlu.data.shapes import Flaw, tagged
from danlu.data.starter import keys, look, recipe
from danlu.errors import UserError

SENTENCE = "-DOCSTART- -X- O O\n\nEU NNP B-NP I-ORG\nrejects VBZ B-VP O\nGerman JJ B-NP I-MISC\n. . O O\n\n"


def read(folder: Path, name: str, content: str, format: str = "auto", shape: str = "tagged") -> list[dict[str, object]]:
    """The rows of a file, as preparing reads them."""
    (folder / name).write_text(content, "utf-8")
    found = sources.describe([folder / name], format=format)
    reader = records.Reader(formats.Cut(), {}, filters.plan("auto"), wanted=shape)
    rows = [record.row for record in reader.records(found[0], reader.shape(found))]
    reader.check()
    return [row for row in rows if row]


@pytest.mark.parametrize(
    ("name", "content", "row"),
    [
        ("a.conll", SENTENCE, {"text": "EU rejects German .", "spans": [(0, 2, "ORG"), (11, 17, "MISC")]}),
        ("a.bmes", "高 B-NAME\n勇 E-NAME\n， O\n男 O\n", {"text": "高勇，男", "spans": [(0, 2, "NAME")]}),
        ("a.bio", "Mr\tO\nZhou\tB-PER\n去\tO\n了\tO\n", {"text": "Mr Zhou 去了", "spans": [(3, 7, "PER")]}),
        ("a.jsonl", json.dumps({"tokens": ["in", "Paris"], "tags": ["O", "S-LOC"]}),
         {"text": "in Paris", "spans": [(3, 8, "LOC")]}),
        ("a.jsonl", json.dumps({"text": "in Paris ", "spans": [{"start": 2, "end": 9, "label": "LOC"}]}),
         {"text": "in Paris ", "spans": [(3, 8, "LOC")]}),
    ],
)  # fmt: skip
def test_every_form_becomes_a_text_and_its_spans(tmp_path: Path, name: str, content: str, row: object) -> None:
    assert read(tmp_path, name, content) == [row]


def test_cleaning_keeps_spans_at_their_characters() -> None:
    row = {"text": "le cafe\u0301 de\x00 Ame\u0301lie ici", "spans": [(3, 8, "shop"), (13, 20, "PER")]}
    clean = shapes.mapped(row, filters.normalize)
    assert clean["text"] == "le café de Amélie ici"
    assert [clean["text"][a:b] for a, b, _ in clean["spans"]] == ["café", "Amélie"]
    assert shapes.loaded(shapes.stored(clean)) == clean


@pytest.mark.parametrize(
    ("row", "flaw"),
    [
        ({"text": "in Paris", "spans": [[3, 9, "LOC"]]}, "span_outside"),
        ({"text": "in Paris", "spans": [[-1, 2, "LOC"]]}, "span_outside"),
        ({"text": "in Paris", "spans": [[2, 3, "LOC"]]}, "span_outside"),
        ({"text": "in Paris", "spans": [[0, 8, "A"], [3, 8, "B"]]}, "spans_overlap"),
        ({"text": "in Paris", "spans": [[0, 8]]}, "span"),
        ({"text": "in Paris", "spans": "LOC"}, "list"),
        ({"tokens": ["in", "Paris"], "tags": ["O"]}, "tags"),
        ({"tokens": ["in", "Paris"], "tags": ["O", "LOC"]}, "tag"),
    ],
)
def test_what_is_broken_is_named(row: dict[str, object], flaw: str) -> None:
    with pytest.raises(Flaw) as caught:
        tagged.canonical(row)
    assert caught.value.key == flaw


def test_a_broken_line_is_named_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, "a.conll", "in O\nParis B-LOC\n\nin O\nParis\n\nin O\nRome B-LOC\n")
    assert caught.value.code == "E208"
    assert caught.value.where == "a.conll:5"


def test_files_are_recognised(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.char.bmes").write_text("高 B-NAME\n勇 E-NAME\n\n中 B-ORG\n国 E-ORG\n男 O\n", "utf-8")
    found = look(tmp_path, "token_classification")
    assert found is not None
    assert found.said == {"kinds": "NAME, ORG", "entities": "2"}
    written, rows = recipe(tmp_path, Path("resumes"))
    assert rows == 2
    assert 'task = "token_classification"' in written
    assert all(f'"resumes/{name}.char.bmes"' in written for name in ("train", "dev", "test"))
    (tmp_path / "other.txt").write_text("in O\nParis B-LOC\n", "utf-8")
    assert keys(tmp_path / "other.txt", "token_classification") == {"format": "conll"}
    (tmp_path / "plain.txt").write_text("She lives in Paris.\nSo O\n", "utf-8")
    assert look(tmp_path / "plain.txt", "token_classification") is None
