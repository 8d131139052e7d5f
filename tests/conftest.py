"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
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
