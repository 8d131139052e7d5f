"""Encodings are recognised from bytes alone; what cannot be decoded is named by line."""

import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from danlu.data import encodings
from danlu.errors import UserError

_CHINESE = "第一回　甄士隐梦幻识通灵\n此开卷第一回也。作者自云：曾历过一番梦幻之后，\n故将真事隐去。\n"
_MIXED = "plain line\ncafé à la carte\n物流很快，包装完好。\n"


def _lines(path: Path, encoding: str = "") -> str:
    return "".join(line for _, line in encodings.lines(path, encoding or encodings.detect(path, path.name), path.name))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("text", [_CHINESE, _MIXED, "only ascii\n"])
def test_text_comes_back_from_every_encoding(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    assert _lines(path) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_seen_in_western_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Some plain text, without a mark.\n".encode(encoding))
    assert encodings.detect(path, "a.txt") == encoding


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_packed_files_are_read_as_if_they_were_not(tmp_path: Path, suffix: str, pack: object) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(pack(_CHINESE.encode("gb18030")))  # type: ignore[operator]
    assert _lines(path) == _CHINESE


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_every_kind_of_line_end_becomes_a_newline(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(_CHINESE.replace("\n", end).encode("utf-8"))
    assert _lines(path) == _CHINESE


@pytest.mark.parametrize(
    ("before", "odd", "place"),
    [("utf-8", "gb18030", 4), ("gb18030", "utf-8", 4), ("utf-8", "latin-1", 4)],
)
def test_a_line_in_another_encoding_is_named(tmp_path: Path, before: str, odd: str, place: int) -> None:
    path = tmp_path / "a.txt"
    line = "déjà vu à côté\n" if odd == "latin-1" else "包装完好，物流很快。\n"
    path.write_bytes(_CHINESE.encode(before) + line.encode(odd) + _CHINESE.encode(before))
    with pytest.raises(UserError) as caught:
        encodings.detect(path, "a.txt")
    assert (caught.value.code, caught.value.where, caught.value.exit) == ("E205", f"a.txt:{place}", 3)


def test_latin1_is_not_taken_for_chinese(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Il était une fois un café très élégant, près de la rivière.\n".encode("latin-1"))
    with pytest.raises(UserError, match="E205"):
        encodings.detect(path, "a.txt")
    assert "élégant" in _lines(path, "latin-1")


def test_an_encoding_that_does_not_fit_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\n\xff\xfe three\n")
    with pytest.raises(UserError) as caught:
        _lines(path, "utf-8")
    assert (caught.value.code, caught.value.where) == ("E205", "a.txt:3")


def test_an_encoding_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n")
    with pytest.raises(UserError, match="E206"):
        _lines(path, "gb18031")


def test_a_line_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("short\n" + "x" * 2**21 + "\n")
    monkeypatch.setattr(encodings, "LINE_LIMIT", 2**20)
    with pytest.raises(UserError) as caught:
        _lines(path)
    assert (caught.value.code, caught.value.where) == ("E207", "a.txt:2")


@pytest.mark.parametrize(("name", "pack"), [("a.txt.gz", gzip.compress), ("a.txt.xz", lzma.compress)])
def test_a_truncated_archive_is_damaged(tmp_path: Path, name: str, pack: object) -> None:
    path = tmp_path / name
    whole = pack(bytes(range(256)) * 400)  # type: ignore[operator]
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="E210"):
        _lines(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1))
def test_any_utf8_text_comes_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode("utf-8"))
    assert _lines(path) == text.removeprefix("\ufeff")
