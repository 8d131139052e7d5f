"""What `runs gc` would delete is what it deletes, and nothing that is in use."""

import json
import os
from pathlib import Path

import pytest

from danlu import cli, files, runs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs of one recipe; each has a folder of its own, and all share one."""
    for number in (1, 2, 3):
        record = {"schema": 1, "recipe": "tiny", "number": number, "at": f"2026-01-0{number}", "why": {},
                  "stages": {"prepare": "prepare-0", "pretrain": f"pretrain-{number}"}}  # fmt: skip
        files.write_json(tmp_path / f"tiny-{number}" / "run.json", record)
        folder(tmp_path, f"pretrain-{number}", number * 100_000)
    folder(tmp_path, "prepare-0", 10)
    folder(tmp_path, "pretrain-9.partial", 10)
    return tmp_path


def folder(root: Path, name: str, size: int) -> None:
    files.write_bytes(root / "store" / name / "data", b"x" * size)
    os.utime(root / "store" / name, (1, 1))


def test_the_preview_lists_what_is_deleted(root: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["runs", "gc", "--root", str(root), "--keep", "1", "--json"]
    assert cli.main(arguments) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["runs"] == ["tiny-1", "tiny-2"]
    before = {path for path in root.glob("**/*") if path.is_dir()}
    assert cli.main([*arguments, "--yes"]) == 0
    gone = before - {path for path in root.glob("**/*") if path.is_dir()}
    assert gone == {root / name for name in shown["runs"]} | {Path(path) for path in shown["folders"]}
    assert {path.name for path in gone} == {"tiny-1", "tiny-2", "pretrain-1", "pretrain-2", "pretrain-9.partial"}


def test_a_locked_folder_is_left_alone(root: Path) -> None:
    lock = root / "store" / "pretrain-9.lock"
    with files.locked(lock):
        assert files.is_locked(lock)
        assert runs.garbage(root) == []
    assert not files.is_locked(lock)
    assert [path.name for path, _ in runs.garbage(root)] == ["pretrain-9.partial"]


def test_only_large_folders_where_asked(root: Path) -> None:
    records, folders = runs.doomed(root, keep=0, larger_mb=0.15)
    assert len(records) == 3
    assert {path.name: size for path, size in folders.items()} == {"pretrain-2": 200_000, "pretrain-3": 300_000}
