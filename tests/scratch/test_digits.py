"""The articles' network, trained on handwritten digits by NumPy alone."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from danlu.scratch.classify import accuracy, epoch
from danlu.scratch.digits import Examples, bundled, idx, mnist
from danlu.scratch.mlp import MLP
from danlu.scratch.optim import Adam
from danlu.scratch.schedule import cosine
from tests.conftest import ROOT


def trained(train: Examples, epochs: int) -> MLP:
    """N inputs, then the articles' 512, 256 and 10."""
    rng = np.random.default_rng(1)
    x, y = train
    net = MLP((x.shape[1], 512, 256, 10), rng)
    net.cast(np.float32)
    optimizer = Adam(net.parameters().values())
    for number in range(epochs):
        epoch(net, optimizer, x, y, 1e-3 * cosine(number, epochs), rng)
    return net


def test_the_bundled_digits_to_96_percent() -> None:
    pytest.importorskip("sklearn", reason="the bundled digits need scikit-learn: pip install 'danlu[learn]'")
    train, test = bundled()
    assert train[0].shape == (1438, 64) and test[0].shape == (359, 64)
    assert accuracy(trained(train, 20), *test) >= 0.96


def test_the_example_runs() -> None:
    pytest.importorskip("sklearn", reason="the bundled digits need scikit-learn: pip install 'danlu[learn]'")
    command = [sys.executable, str(ROOT / "examples" / "digits.py"), "--epochs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    first, second = done.stdout.splitlines()
    assert "epoch   1" in first and float(second.split("accuracy ")[1].split("%")[0]) > 60


@pytest.mark.slow
@pytest.mark.timeout(300)  # what the training may take on two busy cores
def test_real_digits_to_97_5_percent(shared_data: Path) -> None:
    train, test = mnist(shared_data / "mnist")
    assert train[0].shape == (60000, 784) and test[0].shape == (10000, 784)
    assert accuracy(trained(train, 3), *test) >= 0.975


def test_idx_files(tmp_path: Path) -> None:
    numbers = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = b"\0\0\x08\x03" + np.array(numbers.shape, ">u4").tobytes()
    path = tmp_path / "numbers.gz"
    path.write_bytes(gzip.compress(header + numbers.tobytes()))
    assert np.array_equal(idx(path), numbers)
    path.write_bytes(gzip.compress(b"\0\0\x0d\x03" + bytes(12)))
    with pytest.raises(ValueError, match="no idx file"):
        idx(path)
