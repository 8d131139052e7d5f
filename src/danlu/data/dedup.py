"""Exact and near duplicates: MinHash and locality-sensitive hashing propose, exact Jaccard decides.

A text becomes a row of tokens: words, and single characters where a script has no spaces; a shingle is `size`
tokens in a row. Signatures, bands and buckets are computed by Daft (Broder 1997; Leskovec et al., "Mining of
Massive Datasets", chapter 3); every proposed pair is then compared on the very same shingles. Clusters are the
connected components, and the smallest id of each stays. Nothing depends on order or partitions.
"""

import math
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Literal

import daft
import pyarrow as pa
from daft import col
from daft import functions as F

Ngram = Literal["auto", "word", "char"]
Pair = tuple[str, str, float]

UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_HASHES = 256  # longest signature
_MISSED = 0.001  # chance to miss a pair that lies exactly at the threshold
_CROWD = 64  # buckets above this size are compared along a chain, not all against all
_CACHED = 4096  # texts whose shingles are held at once while pairs are verified


@dataclass
class Duplicates:
    """What was found among the texts."""

    pairs: list[Pair] = field(default_factory=list)  # (smaller id, larger id, Jaccard), sorted; exact copies have 1.0
    clusters: list[list[str]] = field(default_factory=list)  # ids, each sorted; the first stays
    exact: set[str] = field(default_factory=set)  # dropped ids whose text equals a kept one but for white space
    size: int = 0  # tokens in a shingle, as chosen

    @property
    def drop(self) -> dict[str, str]:
        """Dropped id -> the id that stays in its place."""
        return {other: cluster[0] for cluster in self.clusters for other in cluster[1:]}


def duplicates(
    ids: Sequence[str],
    texts: Sequence[str],
    *,
    threshold: float = 0.8,
    ngram: Ngram = "auto",
    size: int = 0,
    partitions: int = 1,
) -> Duplicates:
    """Duplicates among texts held in memory; ids are unique.

    Args:
        threshold: Jaccard similarity from which two texts are copies; 1.0 keeps all but equal texts.
        size: tokens in a shingle; 0 chooses 3 words, or 2 characters where words are not spaced ("word": always 3).
        partitions: pieces the work is cut into; the result is the same.
    """
    if len(ids) == 0:
        return Duplicates()
    table = pa.table({"id": pa.array(ids, pa.large_string()), "text": pa.array(texts, pa.large_string())})
    step = math.ceil(len(ids) / partitions)
    frame = daft.from_arrow([table.slice(start, step) for start in range(0, len(ids), step)])
    return find(frame, threshold=threshold, ngram=ngram, size=size)


def frame_of(folder: Path, engine: str = "local") -> daft.DataFrame:
    """Ids and texts of the parquet files in a folder, on this machine or on a cluster ("ray://host:port")."""
    if engine != "local":
        daft.set_runner_ray(engine, noop_if_initialized=True)
    return daft.read_parquet(f"{folder}/*.parquet").select("id", "text")


def spared(found: Duplicates, held_out: Set[str]) -> Duplicates:
    """The same where rows that were given to be held out all stay: what is a copy of one goes in its place."""
    clusters = []
    for cluster in found.clusters:
        stay = [each for each in cluster if each in held_out]
        go = [each for each in cluster if each not in held_out]
        clusters.append([*stay[:1], *go] if stay else cluster)
    same = {each for first, second, jaccard in found.pairs if jaccard == 1.0 for each in (first, second)}
    exact = found.exact | {
        each for cluster in clusters if cluster[0] in held_out for each in cluster[1:] if each in same
    }
    gone = {each for cluster in clusters for each in cluster[1:]}
    return replace(found, clusters=[each for each in clusters if len(each) > 1], exact=exact & gone)


def find(frame: daft.DataFrame, *, threshold: float, ngram: Ngram, size: int) -> Duplicates:
    """Duplicates in a frame with the string columns id and text; holds no text but that of proposed pairs."""
    copies = _exact_copies(frame)
    size = size or _chosen_size(frame, ngram)
    near = [] if threshold >= 1 else _near_pairs(_without(frame, copies), threshold, ngram, size)
    pairs = sorted(_with_copies(near, copies))
    return Duplicates(pairs, components((a, b) for a, b, _ in pairs), set(copies), size)


def components(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Connected components of more than one node, sorted inside and among each other."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in edges:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    members: dict[str, list[str]] = {}
    for node in sorted(parent):
        members.setdefault(root(node), []).append(node)
    return sorted(members.values())


def bands_and_rows(threshold: float) -> tuple[int, int]:
    """Bands b and rows r: the strictest r for which 1 - (1 - t^r)^b misses at most 1 in 1,000 at the threshold."""
    best = (math.ceil(math.log(_MISSED) / math.log(1 - threshold)), 1)
    for rows in range(2, 17):
        bands = math.ceil(math.log(_MISSED) / math.log(1 - threshold**rows))
        if bands * rows > _HASHES:
            break
        best = (bands, rows)
    return best


def shingles(tokens: str, size: int) -> frozenset[tuple[str, ...]]:
    """Runs of `size` tokens of a space-separated text; a shorter text is one shingle."""
    words = tokens.split(" ")
    if len(words) <= size:
        return frozenset([tuple(words)])
    return frozenset(zip(*(words[start:] for start in range(size)), strict=False))


def jaccard(a: frozenset, b: frozenset) -> float:
    """|a and b| / |a or b|."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def tokens(text: daft.Expression, ngram: Ngram) -> daft.Expression:
    """The space-separated tokens of a text, lower case, without punctuation.

    "auto" takes words, and single characters of scripts without spaces; "word" only what stands between spaces and
    punctuation, whatever the script; "char" single letters.
    """
    cut = F.lower(text)
    if ngram != "word":
        cut = F.regexp_replace(cut, r"(\w)" if ngram == "char" else f"({UNSPACED})", " $1 ")
    return F.strip(F.regexp_replace(cut, r"[^\w]+", " "))


def _exact_copies(frame: daft.DataFrame) -> dict[str, str]:
    """Copy -> smallest id with the same text, white space apart (two independent 64-bit hashes)."""
    squeezed = frame.select("id", F.normalize(col("text"), white_space=True).alias("text"))
    keyed = squeezed.select("id", F.hash(col("text"), seed=1).alias("k1"), F.hash(col("text"), seed=2).alias("k2"))
    groups = keyed.groupby("k1", "k2").agg(col("id").list_agg().alias("ids")).where(F.length(col("ids")) > daft.lit(1))
    found = (sorted(ids) for ids in groups.to_pydict()["ids"])
    return {copy: first for first, *rest in found for copy in rest}


def _with_copies(near: list[Pair], copies: dict[str, str]) -> Iterator[Pair]:
    """The near pairs of the kept texts, said of their exact copies as well, and the exact pairs themselves."""
    groups: dict[str, list[str]] = {}
    for copy, kept in sorted(copies.items()):
        groups.setdefault(kept, [kept]).append(copy)
    for group in groups.values():
        yield from ((a, b, 1.0) for a, b in _pairs_of(group))
    for a, b, similarity in near:
        both = product(groups.get(a, [a])[:_CROWD], groups.get(b, [b])[:_CROWD])
        yield from ((min(pair), max(pair), similarity) for pair in both)


def _without(frame: daft.DataFrame, ids: Iterable[str]) -> daft.DataFrame:
    listed = sorted(ids)
    return frame.join(daft.from_pydict({"id": listed}), on="id", how="anti") if listed else frame


def _chosen_size(frame: daft.DataFrame, ngram: Ngram) -> int:
    """3 words; 2 characters for scripts without spaces; 5 letters when single letters are asked for."""
    if ngram == "word":
        return 3
    counts = frame.select(
        F.regexp_count(col("text"), UNSPACED).cast(daft.DataType.int64()).alias("unspaced"),
        F.length(col("text")).cast(daft.DataType.int64()).alias("all"),
    )
    total = counts.agg(col("unspaced").sum(), col("all").sum()).to_pydict()
    unspaced = (total["unspaced"][0] or 0) > 0.3 * (total["all"][0] or 0)
    return 2 if unspaced else 5 if ngram == "char" else 3


def _near_pairs(frame: daft.DataFrame, threshold: float, ngram: Ngram, size: int) -> list[Pair]:
    tokenized = (
        frame.select("id", tokens(col("text"), ngram).alias("tokens")).where(col("tokens") != daft.lit("")).collect()
    )
    proposed = _proposed(tokenized, threshold, size)
    wanted = daft.from_pydict({"id": sorted({name for pair in proposed for name in pair})})
    if not proposed:
        return []
    rows = tokenized.join(wanted, on="id", how="semi").to_pydict()
    return list(_verified(proposed, dict(zip(rows["id"], rows["tokens"], strict=True)), threshold, size))


def _proposed(tokenized: daft.DataFrame, threshold: float, size: int) -> list[tuple[str, str]]:
    """Pairs of ids that share at least one band of their signatures, sorted."""
    bands, rows = bands_and_rows(threshold)
    signature = F.minhash(col("tokens"), num_hashes=bands * rows, ngram_size=size)
    keys = F.list_map(F.chunk(signature, rows), F.hash(daft.element()))
    buckets = (
        tokenized.select("id", keys.alias("key")).explode("key").groupby("key").agg(col("id").list_agg().alias("ids"))
    )
    crowded = buckets.where(F.length(col("ids")) > daft.lit(1)).select(F.list_sort(col("ids")).alias("ids"))
    groups = {tuple(ids) for ids in crowded.to_pydict()["ids"]}
    return sorted({pair for group in groups for pair in _pairs_of(group)})


def _pairs_of(group: Sequence[str]) -> Iterator[tuple[str, str]]:
    """All pairs of a bucket; of a crowded one its first and its neighbours, which join the same component."""
    if len(group) <= _CROWD:
        yield from combinations(group, 2)
    else:
        yield from ((group[0], other) for other in group[1:])
        yield from pairwise(group[1:])


def _verified(pairs: list[tuple[str, str]], texts: dict[str, str], threshold: float, size: int) -> Iterator[Pair]:
    @lru_cache(_CACHED)
    def shingled(name: str) -> frozenset[tuple[str, ...]]:
        return shingles(texts[name], size)

    for a, b in pairs:
        similarity = jaccard(shingled(a), shingled(b))
        if similarity >= threshold:
            yield a, b, similarity
