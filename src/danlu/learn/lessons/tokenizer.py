"""Lesson 4: build a tokenizer, by hand and then at speed."""

from danlu.learn.cells import aside, cell, picture
from danlu.learn.pictures import Curves

cell("bytes")
text = "low lower lowest 炉"
print(list("low".encode()))
print(list("炉".encode()))
print(len(text), "characters,", len(text.encode()), "bytes")

cell("count")
from collections import Counter

words = Counter(
    "low low low low low lower lower newest newest newest".split()
)
split = {word: tuple(word) for word in words}


def pair_counts(words, split):
    counts = Counter()
    for word, times in words.items():
        for pair in zip(split[word], split[word][1:], strict=False):
            counts[pair] += times
    return counts


for pair, count in pair_counts(words, split).most_common(4):
    print(count, pair)

cell("merge")


def merged(symbols, pair):
    out, at = [], 0
    while at < len(symbols):
        if symbols[at : at + 2] == pair:
            out.append(symbols[at] + symbols[at + 1])
            at += 2
        else:
            out.append(symbols[at])
            at += 1
    return tuple(out)


print(merged(("l", "o", "w", "e", "r"), ("l", "o")))
print(merged(("a", "a", "a"), ("a", "a")))

cell("learn")


def learn(words, merges):
    split = {word: tuple(word) for word in words}
    learned = []
    for _ in range(merges):
        counts = pair_counts(words, split)
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        split = {word: merged(split[word], pair) for word in split}
        learned.append(pair)
    return learned, split


learned, split = learn(words, 6)
for number, (left, right) in enumerate(learned, 1):
    print(number, f"{left} + {right} -> {left + right}")
for word, symbols in split.items():
    print(f"{word:7}", *symbols)

cell("encode")


def encode(word, learned):
    symbols = tuple(word)
    for pair in learned:
        symbols = merged(symbols, pair)
    return symbols


print(encode("lowest", learned))
print(encode("slower", learned))

cell("real")
import ast
import re
import sysconfig
import time
from pathlib import Path

kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
texts = []
for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, kinds) and ast.get_docstring(node):
            texts.append(ast.get_docstring(node))
words = Counter(re.findall(r" ?[a-z]+", " ".join(texts).lower()))
start = time.perf_counter()
learned, split = learn(words, 60)
print(f"~{len(words):,} different words")
print(f"60 merges by hand in {time.perf_counter() - start:.1f} s")
print("the first five:", [a + b for a, b in learned[:5]])

cell("danlu")
from danlu.modalities.text import Text

start = time.perf_counter()
tokenizer = Text.fit(texts, type="bpe", vocab_size=2000)
print(f"{tokenizer.vocab_size:,} tokens learned with danlu", end=" ")
print(f"in {time.perf_counter() - start:.1f} s")
ids = tokenizer.encode("Return the lowest value.")
print(tokenizer.show(ids))
print(tokenizer.decode(ids))

cell("anything")
for text in ("炼丹炉", "naïve 🙂", "x = x_0 ** 2"):
    ids = tokenizer.encode(text)
    print(
        f"{text!r}: {len(ids)} tokens, back again:",
        tokenizer.decode(ids) == text,
    )

cell("sizes")
held = " ".join(texts[::10])
learn_from = [text for number, text in enumerate(texts) if number % 10]
sizes = []
for size in (300, 500, 1000, 2000, 4000, 8000):
    made = Text.fit(learn_from, type="bpe", vocab_size=size)
    sizes.append((size, len(held) / len(made.encode(held))))
    print(f"{size:5,} tokens: ~{sizes[-1][1]:.1f} characters per token")

aside()
picture("sizes", Curves({"held": sizes}, x="vocabulary", y="per_token"))

cell("speed")
held = held * 20
start = time.perf_counter()
count = len(made.encode(held))
seconds = time.perf_counter() - start
print(f"encoded {len(held) / 1e6 / seconds:.1f} MB/s")
