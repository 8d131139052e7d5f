"""Records of every format, with the lines at which they begin; broken ones are flaws, not ends."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from danlu.data import formats, sources
from danlu.data.formats import Cut
from danlu.data.shapes import Flaw
from danlu.errors import UserError

_ROWS = [{"text": "一\n二", "n": "1"}, {"text": 'quoted "x", y', "n": "2"}, {"text": "", "n": "3"}]


def _read(path: Path, cut: Cut | None = None) -> list[tuple[int, object]]:
    (file,) = sources.describe([path])
    return list(formats.read(file, cut or Cut()))


def _write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8", newline="")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_with_any_delimiter(tmp_path: Path, delimiter: str) -> None:
    with open(tmp_path / "a.csv", "w", newline="", encoding="gb18030") as file:
        writer = csv.DictWriter(file, ["text", "n"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(_ROWS)
    assert _read(tmp_path / "a.csv") == [(2, _ROWS[0]), (4, _ROWS[1]), (5, _ROWS[2])]


@pytest.mark.parametrize("indent", [None, 1])
def test_json_arrays_and_json_lines(tmp_path: Path, indent: int | None) -> None:
    array = _read(_write(tmp_path / "a.json", json.dumps(_ROWS, indent=indent)))
    lines = _read(_write(tmp_path / "b.jsonl", "\n\n".join(map(json.dumps, _ROWS))))
    assert [row for _, row in array] == [row for _, row in lines] == _ROWS
    assert [line for line, _ in lines] == [1, 3, 5]
    assert [line for line, _ in array] == ([1, 1, 1] if indent is None else [2, 6, 10])


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(_ROWS), tmp_path / "a.parquet")
    assert _read(tmp_path / "a.parquet") == list(enumerate(_ROWS, 1))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"text": "a"', "json"),
        ("[1, 2]", "object"),
        ('"a"', "object"),
        ("[" * 100_000, "deep"),
        ("nonsense", "json"),
    ],
)
def test_a_broken_line_of_jsonl_is_one_flaw(tmp_path: Path, line: str, key: str) -> None:
    good = json.dumps(_ROWS[0])
    (_, first), (number, flaw), (_, last) = _read(_write(tmp_path / "a.jsonl", f"{good}\n{line}\n{good}\n"))
    assert first == last == _ROWS[0]
    assert (number, isinstance(flaw, Flaw) and flaw.key) == (2, key)


def test_rows_of_a_csv_that_do_not_fit_the_header(tmp_path: Path) -> None:
    items = _read(_write(tmp_path / "a.csv", "a,b\n1,2\n1\n\n1,2,3\n3,4\n"))
    assert [(line, isinstance(row, Flaw)) for line, row in items] == [(2, False), (3, True), (5, True), (6, False)]


def test_a_repeated_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="E212"):
        _read(_write(tmp_path / "a.csv", "text,text\na,b\n"))


@pytest.mark.parametrize("text", ["[1, 2", '[{"a": 1}, {"a"]', "[" * 100_000])
def test_a_broken_array_is_a_damaged_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="E210"):
        _read(_write(tmp_path / "a.json", text))


def test_a_truncated_parquet_file_is_damaged(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(_ROWS), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(UserError, match="E210"):
        _read(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.json", "a.py"])
def test_an_empty_file_has_no_text(tmp_path: Path, name: str) -> None:
    assert not any(row["text"] for _, row in _read(_write(tmp_path / name, "")))  # type: ignore[index]


def test_sections_are_cut_at_blank_lines_and_lose_nothing(tmp_path: Path) -> None:
    paragraphs = [f"paragraph {number} " + "word " * (number % 7 * 30) for number in range(60)]
    text = "\n\n".join(paragraphs)
    sections = _read(_write(tmp_path / "a.txt", text), Cut(section=1000))
    assert "\n\n".join(row["text"] for _, row in sections) == text  # type: ignore[index]
    lines = text.split("\n")
    for line, row in sections:
        assert lines[line - 1] == row["text"].split("\n")[0]  # type: ignore[index]
    lengths = [len(row["text"]) for _, row in sections]  # type: ignore[index]
    assert all(1000 <= length < 2100 for length in lengths[:-1])


def test_text_without_blank_lines_is_cut_at_line_ends(tmp_path: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(2000))
    sections = [row["text"] for _, row in _read(_write(tmp_path / "a.txt", text), Cut(section=500))]  # type: ignore[index]
    assert "\n".join(sections) + "\n" == text
    assert max(map(len, sections)) <= 2000


@pytest.mark.parametrize(
    ("record", "wanted"), [("line", ["a", "b"]), ("file", ["a\n\n b\n"]), ("section", ["a\n\n b"])]
)
def test_what_a_record_of_text_is(tmp_path: Path, record: str, wanted: list[str]) -> None:
    found = [row["text"] for _, row in _read(_write(tmp_path / "a.txt", "a\n\n b\n"), Cut(record=record))]  # type: ignore[index]
    assert [text.strip() if record == "line" else text for text in found] == wanted


def test_code_is_one_record_as_it_is(tmp_path: Path) -> None:
    source = "\n\n#!x\n" * 3000
    assert _read(_write(tmp_path / "a.py", source)) == [(1, {"text": source})]


@pytest.mark.parametrize(
    ("name", "cut", "refused"),
    [
        ("a.jsonl", Cut(header=False), True),
        ("a.csv", Cut(pattern="(?P<text>.*)"), True),
        ("a.csv", Cut(header=False), False),
        ("a.txt", Cut(pattern="(?P<text>.*)"), False),
        ("a.jsonl", Cut(), False),
    ],
)
def test_a_key_that_no_file_is_read_by_is_refused(tmp_path: Path, name: str, cut: Cut, refused: bool) -> None:
    found = sources.describe([_write(tmp_path / name, '{"text": "one"}\n')])
    if not refused:
        formats.check(cut, found)
        return
    with pytest.raises(UserError, match=r"data\.(header|pattern)") as caught:
        formats.check(cut, found)
    assert caught.value.code == "E220"
