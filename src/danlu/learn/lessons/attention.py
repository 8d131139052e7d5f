"""Lesson 5: attention, from the formula to the code."""

from danlu.learn.cells import aside, cell, picture
from danlu.learn.pictures import Curves, Heat

cell("words")
import numpy as np

sentence = "The animal didn't cross the street because it was too tired ."
words = sentence.split()
print(len(words), "words; number 7 is", repr(words[7]))

cell("scores")
q = np.array([3.0, 0.0])  # (2,) what "it" looks for: a living thing
keys = {"animal": [2.0, 0.0], "street": [0.2, 2.0], "tired": [0.5, 0.0]}
K = np.array(list(keys.values()))  # (3, 2)
scores = K @ q  # (3, 2) @ (2,) -> (3,)
for word, score in zip(keys, scores, strict=True):
    print(f"{word:7} {score:.1f}")

cell("softmax")


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


weights = softmax(scores / np.sqrt(2))  # (3,)
print("weights", weights.round(3), " sum", weights.sum().round(3))

cell("mix")
V = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])  # (3, 2)
print("result", (weights @ V).round(3))  # (3,) @ (3, 2) -> (2,)

cell("attention")


def attention(Q, K, V):
    scores = Q @ K.T / np.sqrt(Q.shape[-1])  # (T, E) @ (E, S) -> (T, S)
    weights = softmax(scores)  # (T, S), every row sums to 1
    return weights @ V, weights  # (T, S) @ (S, E) -> (T, E)


rng = np.random.default_rng(0)
X = rng.normal(size=(12, 16))  # (T, D): a random vector for each word
Wq, Wk, Wv = (rng.normal(size=(16, 8)) / 4 for _ in range(3))  # (D, E)
mixed, weights = attention(X @ Wq, X @ Wk, X @ Wv)
print("mixed", mixed.shape, " weights", weights.shape)
print("rows sum to 1:", np.allclose(weights.sum(-1), 1))
print("'it' looks most at", repr(words[int(weights[7].argmax())]))

cell("scale")
for size in (4, 64, 1024):
    a, b = rng.normal(size=(2, 1000, size))
    raw = (a * b).sum(-1)
    print(
        f"E = {size:4}: scores spread {raw.std():5.1f},"
        f" divided by √E {raw.std() / np.sqrt(size):.2f}"
    )

cell("task")
living = ["animal", "dog", "child"]
places = ["street", "road", "field"]
about_living = ["tired", "afraid", "hungry"]
about_places = ["wide", "busy", "muddy"]
said = "The {} didn't cross the {} because it was too {} ."

examples = []
for who in living:
    for where in places:
        for state in about_living + about_places:
            text = said.format(who, where, state).split()
            examples.append((text, 1 if state in about_living else 5))
rng.shuffle(examples)
vocabulary = sorted({word for text, _ in examples for word in text})
ids = np.array([[vocabulary.index(w) for w in t] for t, _ in examples])
answer = np.array([place for _, place in examples])
ours = [i for i, (text, _) in enumerate(examples) if text == words]
others = [i for i in range(len(examples)) if i not in ours]
held, learned = ours + others[:13], others[13:]
print(len(learned), "sentences to learn from,", len(held), "held out")
print("'it' is number", answer[ours[0]], "->", words[answer[ours[0]]])

cell("model")
from danlu.scratch.attention import scaled_dot_product
from danlu.scratch.embedding import Embedding
from danlu.scratch.linear import Linear
from danlu.scratch.losses import cross_entropy
from danlu.scratch.module import Module
from danlu.scratch.optim import Adam
from danlu.scratch.tensor import Tensor

D = 16


class Pointer(Module):
    def __init__(self, rng):
        self.word = Embedding(len(vocabulary), D, rng)
        self.place = Embedding(12, D, rng)
        self.q1, self.k1, self.v1 = (Linear(D, D, rng) for _ in range(3))
        self.q2, self.k2 = Linear(D, D, rng), Linear(D, D, rng)

    def forward(self, ids):
        x = self.word(ids) + self.place(np.arange(12))  # (B, 12, D)
        x = x + scaled_dot_product(self.q1(x), self.k1(x), self.v1(x))
        it = self.q2(x)[:, 7:8]  # (B, 1, D): only "it" asks
        return (it @ self.k2(x).swap(1, 2))[:, 0] * D**-0.5  # (B, 12)


def right(net, rows):
    return float((net(ids[rows]).data.argmax(-1) == answer[rows]).mean())


net = Pointer(np.random.default_rng(3))
optimizer = Adam(net.parameters().values())
print(f"before: {right(net, held):.0%} of held-out sentences right")
history = []
for step in range(200):
    loss = cross_entropy(net(ids[learned]), answer[learned])
    optimizer.zero()
    loss.backward()
    optimizer.step(0.01)
    history.append((step + 1, float(loss.data)))
print(f"loss {history[0][1]:.2f} -> {history[-1][1]:.4f}")
print(f"after:  {right(net, held):.0%} of held-out sentences right")

aside()
picture("loss", Curves({"learned": history}, x="step", y="loss"))

cell("look")
tired, wide = words, [*words[:10], "wide", "."]
rows = []
for text in (tired, wide):
    numbers = np.array([[vocabulary.index(word) for word in text]])
    rows.append(softmax(net(numbers).data[0]))
    print(f"too {text[10]:5}:", end="  ")
    print(f"animal {rows[-1][1]:.3f}  street {rows[-1][5]:.3f}")

aside()
picture(
    "look", Heat(rows, ["tired", "wide"], [*words[:10], "tired|wide", "."])
)

cell("swap")


def asked(net, text):
    numbers = np.array([[vocabulary.index(word) for word in text]])
    found = softmax(net(numbers).data[0])  # (12,)
    print(" ".join(text))
    print("  ", text[1], f"{found[1]:.2f}  ", text[5], f"{found[5]:.2f}")


swapped = [*words]
swapped[1], swapped[5] = words[5], words[1]
asked(net, swapped)

cell("both")
turned = ids.copy()
turned[:, [1, 5]] = ids[:, [5, 1]]
rows = learned
net = Pointer(np.random.default_rng(3))
optimizer = Adam(net.parameters().values())
for step in range(400):
    one = cross_entropy(net(ids[rows]), answer[rows])
    other = cross_entropy(net(turned[rows]), 6 - answer[rows])
    optimizer.zero()
    (one + other).backward()
    optimizer.step(0.01)
asked(net, words)
asked(net, swapped)

cell("mask")
from danlu.scratch.attention import causal

print(causal(4).astype(int))
hidden = np.where(causal(4), 0.0, -np.inf)
print(softmax(np.zeros((4, 4)) + hidden).round(2))

cell("same")
import torch
import torch.nn.functional as F

Q, K, V = rng.normal(size=(3, 12, 8))
by_hand, _ = attention(Q, K, V)
scratch = scaled_dot_product(Tensor(Q), Tensor(K), Tensor(V)).data
fast = F.scaled_dot_product_attention(*map(torch.tensor, (Q, K, V)))
print("danlu.scratch:", np.allclose(by_hand, scratch))
print("torch:        ", np.allclose(by_hand, fast.numpy()))
