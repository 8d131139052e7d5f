"""Which files are found, and how they are named by content."""

import os
from pathlib import Path

import pytest

from danlu.data import sources
from danlu.errors import UserError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "a.py",
        "b.md",
        "sub/c.txt.gz",
        "sub/test/d.py",
        ".hidden/e.txt",
        "__pycache__/f.py",
        "g.png",
        ".h.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 100)
    return tmp_path


def _names(root: Path, *paths: str, exclude: tuple[str, ...] = ()) -> list[str]:
    return [path.relative_to(root).as_posix() for path in sources.discover(paths, root, exclude)]


def test_a_folder_gives_its_readable_files(tree: Path) -> None:
    assert _names(tree, ".") == ["a.py", "b.md", "sub/c.txt.gz", "sub/test/d.py"]


def test_files_globs_and_folders_may_be_mixed_and_each_counts_once(tree: Path) -> None:
    assert _names(tree, "*.py", "sub", "a.py", "**/*.py") == [
        "__pycache__/f.py",
        "a.py",
        "sub/c.txt.gz",
        "sub/test/d.py",
    ]


@pytest.mark.parametrize("pattern", ["test", "sub/test/*", "d.*"])
def test_exclusions_match_folders_paths_and_names(tree: Path, pattern: str) -> None:
    assert _names(tree, ".", exclude=(pattern,)) == ["a.py", "b.md", "sub/c.txt.gz"]


def test_exclusions_do_not_look_above_the_folder(tree: Path) -> None:
    assert sources.discover([str(tree / "sub" / "test")], Path("/"), ["test", "sub"])


@pytest.mark.parametrize(("path", "code"), [("nowhere", "E202"), ("*.docx", "E203"), ("g.png/x", "E202")])
def test_nothing_found_is_an_error(tree: Path, path: str, code: str) -> None:
    with pytest.raises(UserError) as caught:
        sources.discover([path], tree)
    assert (caught.value.code, caught.value.exit) == (code, 3)


def test_ids_depend_on_content_alone(tree: Path) -> None:
    first = {file.name: file.row_id(3) for file in sources.describe(sources.discover(["."], tree))}
    os.rename(tree / "a.py", tree / "z.py")
    second = {file.name: file.row_id(3) for file in sources.describe(sources.discover(["."], tree))}
    assert first["a.py"] == second["z.py"]
    assert len(set(first.values())) == len(first)


def test_equal_files_have_ids_of_their_own(tree: Path) -> None:
    (tree / "copy.py").write_bytes((tree / "a.py").read_bytes())
    files = [file for file in sources.describe(sources.discover(["*.py"], tree)) if file.copy or file.name == "a.py"]
    assert [file.name for file in files] == ["a.py", "copy.py"]
    ids = [file.row_id(index) for file in files for index in (0, 1)]
    assert ids == sorted(set(ids))


def test_a_limit_takes_files_in_order_of_their_hash(tree: Path) -> None:
    every = sources.describe(sources.discover(["."], tree))
    assert [file.sha256 for file in every] == sorted(file.sha256 for file in every)
    size = every[0].path.stat().st_size
    assert sources.describe([file.path for file in every], limit_mb=size / 1e6) == every[:1]


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.py", "code"),
        ("a.PY.gz", "code"),
        ("a.md", "text"),
        ("a.train", "text"),
        ("a.jsonl.xz", "jsonl"),
        ("a.TSV", "tsv"),
    ],
)
def test_formats_are_told_by_name(name: str, format: str) -> None:
    assert sources.format_of(Path(name)) == format


@pytest.mark.parametrize("path", ["texts", "texts/*.txt"])
def test_a_link_that_leads_nowhere_is_named(path: str, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "good.txt").write_text("good")
    (tmp_path / "texts" / "gone.txt").symlink_to(tmp_path / "nothing.txt")
    with pytest.raises(UserError) as caught:
        sources.discover([path], tmp_path)
    assert (caught.value.code, caught.value.exit) == ("E213", 3)
    assert "gone.txt" in caught.value.render()
    assert [file.name for file in sources.discover([path], tmp_path, ["gone.txt"])] == ["good.txt"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything may be read here")
def test_a_file_or_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    for closed in (tmp_path / "in" / "a.txt", tmp_path / "in"):
        closed.chmod(0)
        with pytest.raises(UserError) as caught:
            sources.discover(["."], tmp_path)
        closed.chmod(0o700)
        assert caught.value.code == "E213"


def test_where_nothing_can_be_read_the_files_that_are_there_are_named(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / f"{name}.docx").write_bytes(b"PK")
    with pytest.raises(UserError) as caught:
        sources.discover([str(tmp_path)], tmp_path)
    assert caught.value.code == "E203"
    assert caught.value.evidence == (*(f"{name}.docx: 2 B" for name in "abcde"), "…")


def test_a_limit_that_lets_nothing_in_says_what_would(tmp_path: Path) -> None:
    for name, size in (("a.txt", 250_000), ("b.txt", 120_000)):
        (tmp_path / name).write_text("x" * size, "utf-8")
    with pytest.raises(UserError) as caught:
        sources.describe(tmp_path.glob("*.txt"), limit_mb=0.1)
    assert (caught.value.code, caught.value.fields["files"], caught.value.fields["fits"]) == ("E223", 2, "0.2")
    assert [file.name for file in sources.describe(tmp_path.glob("*.txt"), limit_mb=0.2)] == ["b.txt"]
