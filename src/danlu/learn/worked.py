"""The worked examples of the articles, recomputed with NumPy alone: one neuron, and a net of 2, 3 and 2 neurons.

They stand in "从零开始大模型开发与微调：其他细节", section 4. Lesson 1 and the errata read their numbers here.

What was drawn: every value was computed from ONE input and ONE weight, so that there are 16 pre-activations z₁ ... z₁₆.
A neuron adds up ALL its inputs, so that a 2-3-2 net has 3 + 2. Of the drawing's weights w_ji, "to neuron j from input
i", those with a place are kept with their values: w₁₁ ... w₃₂ (3 neurons of 2 inputs) and w₅₁ ... w₅₃, w₆₁ ... w₆₃
(2 neurons of 3 inputs); w₄₁, w₄₂, w₅₄, w₆₄ lead from or to a neuron that does not exist. Every bias is 0.5.

Shapes: I = 2 inputs · H = 3 hidden neurons · O = 2 outputs
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

X = np.array([1.0, 0.0])  # (I,): x₁ and x₂, as the article's sums use them
Y = np.array([1.0, 0.0])  # (O,): the article gives no target here; these are those of its program in section 3.2
W1 = np.array([[0.5, -0.5], [0.5, -0.5], [0.5, -0.5]])  # (H, I): w₁₁ w₁₂, w₂₁ w₂₂, w₃₁ w₃₂
B1 = np.array([0.5, 0.5, 0.5])  # (H,)
W2 = np.array([[0.5, -0.5, 0.5], [0.5, -0.5, 0.5]])  # (O, H): w₅₁ w₅₂ w₅₃, w₆₁ w₆₂ w₆₃
B2 = np.array([0.5, 0.5])  # (O,)


def relu(z: Array) -> Array:
    return np.maximum(z, 0.0)


def sigmoid(z: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-z))


# --- the net, forward and backward -------------------------------------------------------------------


@dataclass(frozen=True)
class Forward:
    """Every value between input and loss."""

    z1: Array  # (H,) = W1 x + b1
    a1: Array  # (H,) = relu(z1)
    z2: Array  # (O,) = W2 a1 + b2
    p: Array  # (O,) = sigmoid(z2), the article's ŷ
    loss: float  # ½ Σ (p - y)²


@dataclass(frozen=True)
class Backward:
    """The derivative of the loss in every one of them, from the last to the first."""

    p: Array  # (O,)
    z2: Array  # (O,)
    w2: Array  # (O, H)
    b2: Array  # (O,)
    a1: Array  # (H,)
    z1: Array  # (H,)
    w1: Array  # (H, I)
    b1: Array  # (H,)


def forward(x: Array = X, y: Array = Y, w1: Array = W1, b1: Array = B1, w2: Array = W2, b2: Array = B2) -> Forward:
    """x (I,) -> p (O,), and how far it is from y (O,)."""
    z1 = w1 @ x + b1  # (H, I) @ (I,) + (H,)
    a1 = relu(z1)
    z2 = w2 @ a1 + b2  # (O, H) @ (H,) + (O,)
    p = sigmoid(z2)
    return Forward(z1, a1, z2, p, float(0.5 * ((p - y) ** 2).sum()))


def backward(f: Forward, x: Array = X, y: Array = Y, w2: Array = W2) -> Backward:
    """The chain rule, one link a line."""
    p = f.p - y  # ½ (p - y)² has the derivative p - y, not 2 (p - y)
    z2 = p * f.p * (1.0 - f.p)  # sigmoid' = p (1 - p)
    a1 = w2.T @ z2  # (H, O) @ (O,): a hidden neuron is to blame for all that it fed
    z1 = a1 * (f.z1 > 0)  # relu' = 1 where z > 0, else 0
    return Backward(p, z2, np.outer(z2, f.a1), z2, a1, z1, np.outer(z1, x), z1)


# --- one neuron (the article's section 4.2) ----------------------------------------------------------


@dataclass(frozen=True)
class Neuron:
    """ŷ = relu(x · w + b) and L = ½ (ŷ - y)², with the derivatives of L."""

    z: float
    p: float  # ŷ
    loss: float
    dp: float
    dz: float
    dw: Array  # like w
    db: float


def neuron(x: Array = X, w: Array | None = None, b: float = 0.5, y: float = 0.0) -> Neuron:
    """The article writes b = [0.5, 0.5]; one neuron has one bias. w is [0.5, 0.5] where none is given."""
    w = np.array([0.5, 0.5]) if w is None else w
    z = float(x @ w + b)
    p = max(z, 0.0)
    dp = p - y
    dz = dp * (z > 0)
    return Neuron(z, p, 0.5 * (p - y) ** 2, dp, dz, dz * x, dz)


# --- the drawing, line by line -----------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One of the article's z = input · weight + bias."""

    number: int  # of z
    source: str  # "x1", "x2", or "a1" ... "a8"
    weight: str  # its name, "w11"
    operands: tuple[float, float, float]  # the three numbers as the article writes them
    said: float  # its result
    right: float  # the same line from right inputs

    @property
    def arithmetic(self) -> float:
        """What the article's own three numbers give."""
        value, weight, bias = self.operands
        return value * weight + bias

    @property
    def slip(self) -> bool:
        """The line does not even follow from its own numbers."""
        return self.arithmetic != self.said


_HIDDEN = (("x1", "w11", 1.0), ("x1", "w12", 0.5), ("x2", "w21", 0.5), ("x2", "w22", 0.5),
           ("x1", "w31", 1.0), ("x1", "w32", 0.5), ("x2", "w41", 0.5), ("x2", "w42", 0.5))  # fmt: skip
_OUTPUT = (("w51", 1.0), ("w52", 0.0), ("w53", 1.0), ("w54", 0.0),
           ("w61", 1.0), ("w62", 0.0), ("w63", 1.0), ("w64", 0.0))  # fmt: skip


def drawing() -> list[Line]:
    """The article's z₁ ... z₁₆, as it says them and as its own drawing would give them."""
    inputs = {"x1": 1.0, "x2": 0.0}
    lines = []
    for n, (source, weight, said) in enumerate(_HIDDEN, 1):
        value, w = inputs[source], 0.5 if n % 2 else -0.5
        lines.append(Line(n, source, weight, (value, w, 0.5), said, value * w + 0.5))
    for n, (weight, said) in enumerate(_OUTPUT, 9):
        before, w = lines[n - 9], 0.5 if n % 2 else -0.5
        operands = max(before.said, 0.0), w, 0.5
        lines.append(Line(n, f"a{n - 8}", weight, operands, said, max(before.right, 0.0) * w + 0.5))
    return lines
