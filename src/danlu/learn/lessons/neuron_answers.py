"""Our answers to the exercises of lesson 1."""

import numpy as np

Array = np.ndarray


def neuron(x: Array, w: Array, b: float) -> float:
    return max(float(w @ x + b), 0.0)


def neuron_gradient(
    x: Array, w: Array, b: float, y: float
) -> tuple[Array, float]:
    z = float(w @ x + b)
    dz = (max(z, 0.0) - y) * (z > 0)
    return dz * x, dz


def layer(x: Array, W: Array, b: Array) -> Array:
    return x @ W.T + b


def slope(f, w: float) -> float:  # type: ignore[no-untyped-def]
    return (f(w + 1e-5) - f(w - 1e-5)) / 2e-5


def square(w: float) -> float:
    return w**2


def wave(w: float) -> float:
    return float(np.sin(3 * w))


_X = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
CASES = {
    "neuron": [
        (np.array([1.0, 0.0]), np.array([0.5, 0.5]), 0.5),
        (np.array([2.0, -1.0]), np.array([0.5, 0.25]), 0.5),
        (np.array([1.0, 2.0]), np.array([0.5, -1.0]), 0.5),
    ],
    "neuron_gradient": [
        (np.array([1.0, 0.0]), np.array([0.5, 0.5]), 0.5, 0.0),
        (np.array([2.0, -1.0]), np.array([0.5, 0.25]), 0.5, 3.0),
        (np.array([1.0, 2.0]), np.array([0.5, -1.0]), 0.5, 1.0),
    ],
    "layer": [
        (_X, np.array([[0.5, -0.5], [0.5, 0.5]]), np.array([0.0, 10.0])),
        (
            _X,
            np.array([[0.5, -0.5], [1.0, 0.5], [2.0, 3.0]]),
            np.array([1.0, 2.0, 3.0]),
        ),
    ],
    "slope": [(square, 3.0), (wave, 0.4)],
}
