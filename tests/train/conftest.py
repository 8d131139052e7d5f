"""What the tests of training share: a hundred rows on disk, and no waiting for the disk."""

import os
from pathlib import Path

import pytest

from danlu.data.loader import Loader
from tests.train.tiny import loaders


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    loaders(folder)
    return folder


@pytest.fixture(scope="module")
def loader(data: Path) -> Loader:
    return loaders(data)[0]


@pytest.fixture(scope="module")
def held_out(data: Path) -> Loader:
    return loaders(data)[1]


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of syncs is tested elsewhere; for others they would only take time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
