"""Lesson 3: clean real text and find its near copies, by hand and then with danlu."""

from danlu.learn.cells import aside, cell, picture
from danlu.learn.pictures import Curves

cell("rows")
rows = {
    "a": "The cat sat on the mat and heard the rain fall on the roof.\r\n",
    "b": "The cat sat on the mat and heard the snow fall on the roof.",
    "c": "The cat  sat on the mat and heard the rain fall on the roof.",
    "d": "Every copy of a text counts: read twice is learned twice.",
    "e": "ok",
    "f": "It costs â‚¬5 â€“ a â€œbargainâ€ they said, and we believed it.",
    "g": "-----=====-----=====  NEXT  -----=====-----=====",
    "h": "下雨了，猫坐在垫子上，看雨点打在屋顶上。",
    "i": "cafe\u0301 au lait, twice a day, on the terrace of the old hotel",
}
print(len(rows), "rows")
print(f"row i shows {rows['i'][:5]!r}, {len(rows['i'][:5])} characters")

cell("normalize")
import unicodedata


def normalize(text):
    text = text.replace("\r\n", "\n")
    return unicodedata.normalize("NFC", text)


rows = {name: normalize(text) for name, text in rows.items()}
print(f"row a ends in {rows['a'][-6:]!r}")
print(f"row i shows {rows['i'][:4]!r}, {len(rows['i'][:4])} characters")

cell("filters")


def reason(text):
    if len(text.encode("utf-8")) < 32:
        return "short"
    if text.count("â€") + text.count("\ufffd") > len(text) / 200:
        return "garbled"
    signs = sum(not (c.isalnum() or c.isspace()) for c in text)
    return "symbols" if signs > len(text) / 2 else None


for name, text in rows.items():
    if reason(text):
        print(f"drop {name} ({reason(text)}): {text[:40]!r}")
rows = {name: text for name, text in rows.items() if not reason(text)}
print("kept:", *rows)

cell("exact")
import hashlib


def fingerprint(text):
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:8]


for name in "abcd":
    print(name, fingerprint(rows[name]))

cell("jaccard")
import re


def shingles(text, size=3):
    words = re.findall(r"\w+", text.lower())
    return {
        tuple(words[i : i + size]) for i in range(len(words) - size + 1)
    }


def jaccard(a, b):
    return len(a & b) / len(a | b)


a, b, d = (shingles(rows[name]) for name in "abd")
print("first shingle:", sorted(a)[0])
print("a and b share", len(a & b), "of", len(a | b))
exact = jaccard(a, b)
print(f"similarity a, b: {exact:.2f}")
print(f"similarity a, d: {jaccard(a, d):.2f}")

cell("minhash")


def scramble(shingle, number):
    data = f"{number} {' '.join(shingle)}".encode()
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def signature(shingled, hashes):
    return [min(scramble(s, n) for s in shingled) for n in range(hashes)]


def estimate(one, other):
    equal = sum(x == y for x, y in zip(one, other, strict=True))
    return equal / len(one)


for hashes in (8, 64, 512):
    found = estimate(signature(a, hashes), signature(b, hashes))
    print(f"{hashes:3} hashes: estimate {found:.3f}, exact {exact:.3f}")

aside()
long_a, long_b = signature(a, 512), signature(b, 512)
estimates = [
    (n, estimate(long_a[:n], long_b[:n])) for n in range(4, 513, 4)
]
picture(
    "minhash",
    Curves(
        {"estimate": estimates, "exact": [(4, exact), (512, exact)]},
        x="hashes",
        y="similarity",
    ),
)

cell("bands")


def chance(similarity, bands, rows):
    return 1 - (1 - similarity**rows) ** bands


for similarity in (0.2, 0.5, 0.8, 0.9):
    print(
        f"{similarity:.0%} alike: found with"
        f" {chance(similarity, bands=20, rows=5):.2%}"
    )

aside()
grid = [n / 100 for n in range(101)]
picture(
    "bands",
    Curves(
        {
            "20 × 5": [(s, chance(s, 20, 5)) for s in grid],
            "50 × 2": [(s, chance(s, 50, 2)) for s in grid],
            "10 × 10": [(s, chance(s, 10, 10)) for s in grid],
        },
        x="similarity",
        y="found",
    ),
)

cell("danlu")
from danlu.data.dedup import duplicates

names = list(rows)
found = duplicates(names, list(rows.values()), threshold=0.5)
for one, other, similarity in found.pairs:
    print(one, other, f"{similarity:.2f}")
print("groups:", found.clusters, "  dropped:", sorted(found.drop))

cell("library")
import ast
import sysconfig
from pathlib import Path

kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
texts = []
for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, kinds) and ast.get_docstring(node):
            texts.append(ast.get_docstring(node))
pairs = len(texts) * (len(texts) - 1) // 2
print(f"~{len(texts):,} texts, ~{pairs:,} pairs to compare one by one")

cell("scale")
import time
from collections import Counter

from danlu.data.filters import AUTO, normalize, verdict

steps = [step for step in AUTO["text"] if step.startswith("drop")]
cleaned = [normalize(text) for text in texts]
verdicts = [verdict(text, steps) for text in cleaned]
kept = [t for t, why in zip(cleaned, verdicts, strict=True) if not why]
ids = [f"{number:05}" for number in range(len(kept))]
start = time.perf_counter()
found = duplicates(ids, kept, threshold=0.8)
seconds = time.perf_counter() - start
reasons = Counter(why[1] for why in verdicts if why)
print("dropped:", ", ".join(f"{k} ~{n}" for k, n in reasons.items()))
print(f"copies: ~{len(found.drop):,}, of which exact ~{len(found.exact)}")
print(f"searched in {seconds:.1f} s")
