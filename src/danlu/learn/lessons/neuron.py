"""Lesson 1: one neuron, then a net of 2, 3 and 2, forward and backward, number by number."""

from danlu.learn.cells import aside, cell, picture
from danlu.learn.pictures import Net

cell("neuron")
import numpy as np

x = np.array([1.0, 0.0])  # (2,)
w = np.array([0.5, 0.5])  # (2,)
b = 0.5

z = w[0] * x[0] + w[1] * x[1] + b
p = max(z, 0.0)
print("z =", z)
print("p =", p)
print("w @ x + b =", w @ x + b)

cell("loss")
y = 0.0
loss = 0.5 * (p - y) ** 2
print("loss =", loss)

cell("chain")
dp = p - y
dz = dp * (1.0 if z > 0 else 0.0)
dw = dz * x  # (2,)
db = dz
print("dp =", dp, "  dz =", dz, "  dw =", dw, "  db =", db)

cell("nudge")


def loss_of(w, b):
    p = max(w @ x + b, 0.0)
    return 0.5 * (p - y) ** 2


h = 1e-5
up = loss_of(w + [h, 0], b)
down = loss_of(w - [h, 0], b)
print(f"up   {up:.10f}")
print(f"down {down:.10f}")
print(f"(up - down) / 2h = {(up - down) / (2 * h):.6f}")

cell("step")
lr = 0.1
before = loss_of(w, b)
w = w - lr * dw
b = b - lr * db
after = loss_of(w, b)
print("w =", w, "  b =", b)
print(f"loss {before:.3f} -> {after:.3f}")

cell("drawing")
from danlu.learn.worked import drawing

for line in drawing():
    value, weight, bias = line.operands
    wrong = "✗" if line.slip else ""
    print(f"z{line.number:<2} = {value} * {weight:4} + {bias}", end="")
    print(f" = {line.arithmetic:<4}   said {line.said} {wrong}")

cell("net")
x = np.array([1.0, 0.0])  # (2,)
y = np.array([1.0, 0.0])  # (2,)
W1 = np.array([[0.5, -0.5], [0.5, -0.5], [0.5, -0.5]])  # (3, 2)
b1 = np.array([0.5, 0.5, 0.5])  # (3,)
W2 = np.array([[0.5, -0.5, 0.5], [0.5, -0.5, 0.5]])  # (2, 3)
b2 = np.array([0.5, 0.5])  # (2,)

z1 = W1 @ x + b1  # (3, 2) @ (2,) + (3,)
a1 = np.maximum(z1, 0)  # (3,)
z2 = W2 @ a1 + b2  # (2, 3) @ (3,) + (2,)
p = 1 / (1 + np.exp(-z2))  # (2,)
loss = 0.5 * ((p - y) ** 2).sum()
print("z1 =", z1)
print("a1 =", a1)
print("z2 =", z2)
print("p  =", p.round(4))
print("loss =", loss.round(4))

aside()
picture(
    "net",
    Net(
        [
            [("x₁", f"{x[0]:g}"), ("x₂", f"{x[1]:g}")],
            [
                (name, f"{value:g}")
                for name, value in zip(("a₁", "a₂", "a₃"), a1, strict=True)
            ],
            [
                (name, f"{value:.4f}")
                for name, value in zip(("p₁", "p₂"), p, strict=True)
            ],
        ],
        [(0, i, j, f"{W1[j, i]:g}") for j in range(3) for i in range(2)]
        + [(1, i, j, f"{W2[j, i]:g}") for j in range(2) for i in range(3)],
    ),
)

cell("backward")
dp = p - y  # (2,)
dz2 = dp * p * (1 - p)  # (2,)
dW2 = np.outer(dz2, a1)  # (2, 3)
db2 = dz2  # (2,)
da1 = W2.T @ dz2  # (3, 2) @ (2,) -> (3,)
dz1 = da1 * (z1 > 0)  # (3,)
dW1 = np.outer(dz1, x)  # (3, 2)
db1 = dz1  # (3,)
for name, value in {
    "dp": dp,
    "dz2": dz2,
    "dW2": dW2,
    "da1": da1,
    "dz1": dz1,
    "dW1": dW1,
}.items():
    print(
        f"{name:3} {value.shape}".ljust(12),
        str(value.round(4)).replace("\n", " "),
    )

cell("check")


def net_loss(W1, b1, W2, b2):
    a1 = np.maximum(W1 @ x + b1, 0)
    p = 1 / (1 + np.exp(-(W2 @ a1 + b2)))
    return 0.5 * ((p - y) ** 2).sum()


weights = [W1, b1, W2, b2]
worst = 0.0
for weight, gradient in zip(weights, [dW1, db1, dW2, db2], strict=True):
    for at in np.ndindex(weight.shape):
        kept = weight[at]
        weight[at] = kept + h
        up = net_loss(*weights)
        weight[at] = kept - h
        down = net_loss(*weights)
        weight[at] = kept
        worst = max(worst, abs((up - down) / (2 * h) - gradient[at]))
print(
    sum(weight.size for weight in weights),
    "numbers checked; all agree to 1e-9:",
    worst < 1e-9,
)

cell("engine")
from danlu.scratch.activations import relu, sigmoid
from danlu.scratch.module import Parameter
from danlu.scratch.tensor import Tensor

V1, c1, V2, c2 = (Parameter(weight) for weight in weights)
hidden = relu(
    Tensor(x[None]) @ V1.swap(0, 1) + c1
)  # (1, 2) @ (2, 3) + (3,) -> (1, 3)
out = sigmoid(
    hidden @ V2.swap(0, 1) + c2
)  # (1, 3) @ (3, 2) + (2,) -> (1, 2)
((out - y) ** 2 * 0.5).sum().backward()
print("dW1 =", str(V1.grad.round(4)).replace("\n", " "))
print(
    "equal to ours:",
    np.allclose(V1.grad, dW1) and np.allclose(V2.grad, dW2),
)
