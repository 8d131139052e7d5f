"""Exact and near copies among pictures: hashes of 64 bits propose, the correlation of their pixels decides.

A hash is in the manner of pHash (Zauner 2010): the signs of the lowest frequencies of a small grey picture's cosine
transform. Compressing, resizing or brightening a picture changes few of them. Two pictures are proposed where they
agree in one of eight bands of 16 bits and differ in few altogether; then their pixels are compared. Many drawings of a
digit are as alike as copies of a photograph, so a copy must stand out from what else is like it, or be nearly equal.
Clusters are as those of texts (dedup.py). A mirrored, turned or cut picture is another one.

Shapes: N pictures · P pairs of them, by their places · V pixels of a small picture
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from danlu import pixels
from danlu.data.dedup import Duplicates, components

_SIDE, _LOW = 32, 8  # pixels on each side that are looked at, and frequencies along each
_BITS = 16  # of a band
_APART = 8  # bits in which two that are proposed differ at most
_CROWD = 16  # of many with the same band each is compared with so many that follow it, in order of their hashes
_EQUAL = 0.995  # correlation from which two are copies, however many are
_OTHERS, _FARTHER = 3, 3.0  # else the third most alike of each must be three times as far
_FLAT = 2.0  # standard deviation of pixels below which there is nothing to compare
_CHUNK = 4096  # pairs compared at once
_WAVES = np.outer(np.arange(_LOW), 2 * np.arange(_SIDE) + 1) * np.pi / (2 * _SIDE)
_COSINES = np.cos(_WAVES).astype(np.float32)  # (frequencies, pixels) of the cosine transform (II)
_ORDER = np.add.outer(np.arange(_LOW), np.arange(_LOW)).ravel().argsort(kind="stable")  # the lowest first
_BANDS = np.concatenate((np.arange(_LOW**2).reshape(-1, _BITS), np.arange(_LOW**2).reshape(_BITS, -1).T))


class Print(NamedTuple):
    """What is remembered of a picture."""

    id: str
    digest: str  # of its file
    hash: str


def hashed(image: Any) -> str:
    """The hash of a Pillow image: 16 hex digits."""
    grey = np.asarray(_small(image).convert("L"), np.float32)
    return np.packbits((_COSINES @ grey @ _COSINES.T).ravel()[_ORDER] > 0).tobytes().hex()


def find(prints: Iterable[Print], read: Iterable[Mapping[str, Any]], least: float) -> Duplicates:
    """Duplicates among pictures.

    Args:
        read: rows with id and image, from which those that are proposed are taken.
        least: correlation of pixels from which two pictures can be copies; 1.0 keeps all but equal files.
    """
    first, copies, others = dict[str, str](), dict[str, str](), list[Print]()
    for each in sorted(prints):
        kept = first.setdefault(each.digest, each.id)
        if kept == each.id:
            others.append(each)
        else:
            copies[each.id] = kept
    near = _near([each.id for each in others], _proposed(others), read, least) if least < 1 else []
    pairs = sorted([*((kept, copy, 1.0) for copy, kept in copies.items()), *near])
    return Duplicates(pairs, components((a, b) for a, b, _ in pairs), set(copies))


def _proposed(prints: Sequence[Print]) -> np.ndarray:
    """Pairs (P, 2) whose hashes are alike, the smaller place first."""
    data = np.frombuffer(bytes.fromhex("".join(each.hash for each in prints)), np.uint8).reshape(-1, _LOW)
    hashes, bits = data.view(np.uint64)[:, 0], np.unpackbits(data, axis=1).astype(np.int64)
    found = [np.zeros((0, 2), np.int64)]
    for band in _BANDS:
        keys = bits[:, band] @ (1 << np.arange(_BITS))
        order = np.lexsort((hashes, keys))
        for step in range(1, min(_CROWD + 1, len(order))):
            one, other = order[:-step], order[step:]
            same = keys[one] == keys[other]
            same &= np.bitwise_count(hashes[one] ^ hashes[other]) <= _APART
            found.append(np.stack((one[same], other[same]), 1))
    return np.unique(np.sort(np.concatenate(found), 1), axis=0)


def _near(
    ids: Sequence[str], pairs: np.ndarray, read: Iterable[Mapping[str, Any]], least: float
) -> list[tuple[str, str, float]]:
    """The pairs (P, 2) that are copies, by their ids, and their correlations."""
    if not len(pairs):
        return []
    places, within = np.unique(pairs, return_inverse=True)
    within, rows = within.reshape(pairs.shape), {ids[place]: row for row, place in enumerate(places.tolist())}
    seen = np.zeros((len(places), _SIDE**2, 3), np.uint8)
    for row in read:
        if (place := rows.get(row["id"])) is not None:
            colours = _small(pixels.opened(pixels.read(row["image"])).convert("RGB"))
            seen[place] = np.asarray(colours).reshape(-1, 3)
    alike = _correlations(_standardised(seen.mean(2, np.float32)), within)
    copies = (alike >= least) & ((alike >= _EQUAL) | _stand_out(within, 1 - alike))
    pairs, within = pairs[copies], within[copies]
    coloured = [_correlations(_standardised(seen[pair].reshape(2, -1)), np.array([[0, 1]]))[0] for pair in within]
    return [
        (ids[one], ids[other], round(min(float(value), 1.0), 4))
        for (one, other), value in zip(pairs.tolist(), coloured, strict=True)
        if value >= least
    ]


def _standardised(seen: np.ndarray) -> np.ndarray:
    """Of pixels (N, V) those about their mean, as vectors of length 1; of length 0 where they are flat."""
    values = seen.astype(np.float32)
    values -= values.mean(1, keepdims=True)
    spread = np.sqrt((values**2).mean(1, keepdims=True))
    values /= np.maximum(spread, _FLAT) * np.sqrt(values.shape[1])
    return np.asarray(values * (spread >= _FLAT))


def _correlations(vectors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Products (P,) of vectors (N, V) in pairs (P, 2)."""
    cut = np.split(pairs, range(_CHUNK, len(pairs), _CHUNK))
    return np.concatenate([np.einsum("pv,pv->p", vectors[each[:, 0]], vectors[each[:, 1]]) for each in cut])


def _stand_out(pairs: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Whether a pair (P, 2), so far apart, is much nearer than what is third nearest to each of the two."""
    ends, lengths = pairs.T.ravel(), np.tile(far, 2)
    order = np.lexsort((lengths, ends))
    ends, lengths = ends[order], lengths[order]
    third = np.full(int(pairs.max()) + 1, np.inf)
    starts = np.searchsorted(ends, np.arange(len(third))) + _OTHERS - 1
    there = np.minimum(starts, len(ends) - 1)
    known = (starts < len(ends)) & (ends[there] == np.arange(len(third)))
    third[known] = lengths[there[known]]
    return np.asarray((_FARTHER * far[:, None] <= third[pairs]).all(1))


def _small(image: Any) -> Any:
    from PIL import Image

    return image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
