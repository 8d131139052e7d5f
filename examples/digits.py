"""A network of NumPy alone learns handwritten digits: 512, 256, 10, as in many a first article.

    python examples/digits.py [FOLDER with the four MNIST files] [--epochs 5]

Without a folder: the 8 x 8 digits that come with scikit-learn (pip install "danlu[learn]").
"""

import argparse
import time

import numpy as np

from danlu.scratch.classify import accuracy, epoch
from danlu.scratch.digits import bundled, mnist
from danlu.scratch.mlp import MLP
from danlu.scratch.optim import Adam
from danlu.scratch.schedule import cosine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--epochs", type=int, default=0)
    given = parser.parse_args()
    (x, y), test = mnist(given.folder) if given.folder else bundled()
    epochs = given.epochs or (5 if given.folder else 20)

    rng = np.random.default_rng(1)
    net = MLP((x.shape[1], 512, 256, 10), rng)
    net.cast(np.float32)
    optimizer = Adam(net.parameters().values())
    start = time.perf_counter()
    for number in range(epochs):
        loss = epoch(net, optimizer, x, y, 1e-3 * cosine(number, epochs), rng)
        seconds = time.perf_counter() - start
        print(f"epoch {number + 1:3}  loss {loss:.4f}  test accuracy {accuracy(net, *test):.2%}  {seconds:.0f} s")


if __name__ == "__main__":
    main()
