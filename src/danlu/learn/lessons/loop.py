"""Lesson 2: the training loop, its learning rate, when to stop, and what to do about over-fitting."""

from danlu.learn.cells import aside, cell, picture
from danlu.learn.pictures import Curves, Heat

cell("data")
import numpy as np
from danlu.scratch.digits import bundled

(x, y), (held_x, held_y) = bundled()
x, y = x[:200].astype(float), y[:200]
print("to learn from:", x.shape, y.shape)
print("held out:     ", held_x.shape, held_y.shape)
print("one image, row 4:", x[0].reshape(8, 8)[4].round(1))
print("its label:", y[0])

aside()
row = np.concatenate([x[i].reshape(8, 8) for i in range(4)], axis=1)
picture("digits", Heat(row, [""] * 8, [""] * row.shape[1]))

cell("net")
from danlu.scratch.mlp import MLP
from danlu.scratch.tensor import Tensor
from danlu.scratch.losses import cross_entropy

net = MLP((64, 128, 10), np.random.default_rng(0))
logits = net(Tensor(x))  # (200, 64) -> (200, 10)
loss = cross_entropy(logits, y)
print("logits:", logits.shape)
print(f"loss before learning {float(loss.data):.2f}")
print(f"loss of pure guessing: ln 10 = {np.log(10):.2f}")

cell("loop")
from danlu.scratch.optim import SGD


def train(net, lr, epochs):
    optimizer = SGD(net.parameters().values())
    order = np.random.default_rng(1)
    history = []
    for epoch in range(epochs):
        for rows in np.split(order.permutation(200), 4):  # 50 each
            loss = cross_entropy(net(Tensor(x[rows])), y[rows])
            optimizer.zero()
            loss.backward()
            optimizer.step(lr)
        history.append((epoch + 1, loss_on(net, x, y)))
    return history


def loss_on(net, x, y):
    return float(cross_entropy(net(Tensor(x)), y).data)


def accuracy_on(net, x, y):
    return float((net(Tensor(x)).data.argmax(-1) == y).mean())


history = train(net, lr=0.1, epochs=40)
print(f"loss {history[0][1]:.2f} -> {history[-1][1]:.2f}")
print(f"right on what it learned from: {accuracy_on(net, x, y):.0%}")
print(
    f"right on held-out digits:      {accuracy_on(net, held_x, held_y):.0%}"
)

cell("rates")
curves = {}
for lr in (0.003, 0.1, 1.0, 3.0):
    net = MLP((64, 128, 10), np.random.default_rng(0))
    curves[f"lr = {lr}"] = history = train(net, lr, epochs=40)
    print(f"lr {lr:<5}  loss after 40 epochs: {history[-1][1]:.2f}")

aside()
picture("rates", Curves(curves, x="epoch", y="loss", top=4.0))

cell("overfit")
from danlu.scratch.optim import Adam


def fit(net, epochs=300, batch=lambda x: x, penalty=lambda net: 0.0):
    optimizer = Adam(net.parameters().values())
    order = np.random.default_rng(1)
    learned, held = [], []
    for epoch in range(epochs):
        net.train()
        for rows in np.split(order.permutation(200), 4):
            loss = cross_entropy(net(Tensor(batch(x[rows]))), noisy[rows])
            loss = loss + penalty(net)
            optimizer.zero()
            loss.backward()
            optimizer.step(0.003)
        net.train(False)
        learned.append((epoch + 1, loss_on(net, x, noisy)))
        held.append((epoch + 1, loss_on(net, held_x, held_y)))
    return learned, held


rng = np.random.default_rng(5)
noisy = y.copy()
wrong = rng.choice(200, 20, replace=False)
noisy[wrong] = rng.integers(0, 10, 20)
net = MLP((64, 128, 10), np.random.default_rng(0))
learned, held = fit(net)
best = min(held, key=lambda point: point[1])
print(f"after {best[0]} epochs: held-out loss {best[1]:.2f}, the lowest")
print(f"after 300 epochs: loss {learned[-1][1]:.3f} where it learned,")
print(f"                  {held[-1][1]:.2f} on held-out digits")

aside()
picture(
    "overfit",
    Curves({"learned": learned, "held": held}, x="epoch", y="loss"),
)

cell("stopping")


def stop_at(held, patience):
    best = 0
    for now, loss in enumerate(held):
        if loss < held[best]:
            best = now
        elif now - best >= patience:
            break
    return best, now


best_at, stopped = stop_at([loss for _, loss in held], patience=10)
print(f"kept: epoch {best_at + 1}; stopped looking at epoch {stopped + 1}")

cell("cures")
from danlu.scratch.activations import relu
from danlu.scratch.dropout import Dropout
from danlu.scratch.linear import Linear
from danlu.scratch.module import Module


def matrices(net):
    return [p for p in net.parameters().values() if p.data.ndim == 2]


def l2(net):
    return sum(((w**2).sum() for w in matrices(net)), Tensor(0.0)) * 0.003


def l1(net):
    sizes = ((w * np.sign(w.data)).sum() for w in matrices(net))
    return sum(sizes, Tensor(0.0)) * 0.0008


class Dropped(Module):
    def __init__(self, rng):
        self.first, self.last = Linear(64, 128, rng), Linear(128, 10, rng)
        self.drop = Dropout(0.5, rng)

    def forward(self, x):
        return self.last(self.drop(relu(self.first(x))))


moves = np.random.default_rng(2)


def shifted(x):
    images = x.reshape(-1, 8, 8)
    by = moves.integers(-1, 2, (len(x), 2))
    moved = [np.roll(i, d, (0, 1)) for i, d in zip(images, by, strict=True)]
    return np.stack(moved).reshape(x.shape)


def plain():
    return MLP((64, 128, 10), np.random.default_rng(0))


tried = {
    "nothing": (plain(), {}),
    "L2": (plain(), {"penalty": l2}),
    "L1": (plain(), {"penalty": l1}),
    "dropout": (Dropped(np.random.default_rng(0)), {}),
    "augment": (plain(), {"batch": shifted}),
}
cures = {}
for name, (net, cure) in tried.items():
    learned, held = fit(net, **cure)
    cures[name] = held
    right = accuracy_on(net, held_x, held_y)
    small = np.mean([np.abs(w.data) < 0.01 for w in matrices(net)[:1]])
    print(
        f"{name:8} learned {learned[-1][1]:.2f}  held out {held[-1][1]:.2f}"
        f"  right {right:.0%}  weights near 0: {small:.0%}"
    )

aside()
picture("cures", Curves(cures, x="epoch", y="held_loss", top=1.5))
