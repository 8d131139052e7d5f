"""SentencePiece vocabularies (1808.06226), unigram (1804.10959) or byte-pair, read from their .model files.

A .model is one protocol buffer; only the few fields that decide how text is split are read here.
Pieces write the space before a word as U+2581, and bytes outside the vocabulary as <0x41>.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

SPACE = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3  # types of a piece
_UNIGRAM, _BPE = 1, 2  # kinds of a model

Field = tuple[int, Any]


def build(data: bytes) -> Tokenizer:
    """The tokenizer of a .model file.

    Raises:
        ValueError: it is damaged, or of a kind that has no merges and no scores (word, char).
    """
    fields = list(_fields(data))
    pieces = [_piece(value) for number, value in fields if number == 1]
    trainer = dict(_fields(next(value for number, value in fields if number == 2)))
    normal = dict(_fields(next((value for number, value in fields if number == 3), b"")))
    kind, fallback = trainer.get(3, _UNIGRAM), bool(trainer.get(35, 0))
    if kind not in (_UNIGRAM, _BPE) or not pieces:
        raise ValueError(f"a SentencePiece model of kind {kind}")
    unknown = next((index for index, (_, _, type_) in enumerate(pieces) if type_ == _UNKNOWN), 0)
    prefix = bool(normal.get(3, 1))
    tokenizer = _unigram(pieces, unknown, fallback) if kind == _UNIGRAM else _bpe(pieces, unknown, fallback)
    tokenizer.normalizer = _normalizer(normal, kind, prefix)
    if kind == _UNIGRAM:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always" if prefix else "never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", int(prefix), 0)]
    )
    control = [text for text, _, type_ in pieces if type_ in (_UNKNOWN, _CONTROL)]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    return tokenizer


def pieces(tokenizer: Tokenizer) -> dict[int, bytes]:
    """What every token adds to a text; the space before the first word is not the text's."""
    return {index: _bytes(token) for token, index in tokenizer.get_vocab(with_added_tokens=False).items()}


def _bytes(token: str) -> bytes:
    spelled = _BYTE.fullmatch(token)
    return bytes([int(spelled[1], 16)]) if spelled else token.replace(SPACE, " ").encode()


def _unigram(pieces: list[tuple[str, float, int]], unknown: int, fallback: bool) -> Tokenizer:
    return Tokenizer(models.Unigram([(text, score) for text, score, _ in pieces], unknown, fallback))


def _bpe(pieces: list[tuple[str, float, int]], unknown: int, fallback: bool) -> Tokenizer:
    """Pairs are joined in the order of their result's score."""
    vocabulary = {text: index for index, (text, _, _) in enumerate(pieces)}
    merges: list[tuple[float, int, int, str, str]] = []
    for text, score, type_ in pieces:
        for cut in range(1, len(text) if type_ == _NORMAL else 0):
            left, right = text[:cut], text[cut:]
            if left in vocabulary and right in vocabulary:
                merges.append((-score, vocabulary[left], vocabulary[right], left, right))
    ordered = [(left, right) for *_, left, right in sorted(merges)]
    unk = pieces[unknown][0]
    return Tokenizer(models.BPE(vocabulary, ordered, unk_token=unk, fuse_unk=True, byte_fallback=fallback))


def _normalizer(normal: dict[int, Any], kind: int, prefix: bool) -> normalizers.Normalizer:
    """The file's own table of characters, then spaces."""
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(normal[2])] if normal.get(2) else []
    if bool(normal.get(4, 1)):
        steps += [normalizers.Strip(left=kind == _BPE, right=True), normalizers.Replace(Regex(" {2,}"), " ")]
    if kind == _BPE:
        steps += [normalizers.Prepend(SPACE)] * prefix + [normalizers.Replace(" ", SPACE)]
    return normalizers.Sequence(steps)


def _piece(data: bytes) -> tuple[str, float, int]:
    """(text, score, type)."""
    fields = dict(_fields(data))
    return fields[1].decode(), struct.unpack("<f", fields.get(2, b"\0\0\0\0"))[0], fields.get(3, _NORMAL)


def _fields(data: bytes) -> Iterator[Field]:
    """(number, value) of a protocol buffer: whole numbers, and bytes for the rest.

    Raises:
        ValueError: it ends within a field, or is no protocol buffer.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError("not a protocol buffer")
        length, at = _varint(data, at) if kind == 2 else (8 if kind == 1 else 4, at)
        if at + length > len(data):
            raise ValueError("ends within a field")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, lowest first; and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("ends within a number")
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at
