"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("DANLU_LANG", "en")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project, where there is one."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return folder
