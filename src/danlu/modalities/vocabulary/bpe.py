"""Byte-level byte-pair encoding with Qwen2's split rule (Sennrich et al. 2016; Radford et al. 2019).

tiktoken encodes the same merges several times faster. It joins any two neighbours whose union is a
token, where the tokenizer joins only the pairs it learned. The two agree on every word exactly when
each token's own bytes encode to that token alone: were x, y neighbours with x + y = t a token but not
its learned pair, the merging of t's own bytes would end in x, y and not in t. `fast` checks all tokens.
"""

import json
from functools import cache

import tiktoken
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LONGEST = r"[\s\S]{1,16}"  # in training only: bounds the words of unspaced scripts, and so the trainer's memory
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))


def _split(*patterns: str) -> pre_tokenizers.PreTokenizer:
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(texts: list[str], size: int) -> Tokenizer:
    """A tokenizer of at most `size` tokens, the 256 bytes among them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = _split(SPLIT, _LONGEST)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    tokenizer.pre_tokenizer = _split(SPLIT)
    return tokenizer


@cache
def _byte_of() -> dict[str, int]:
    """GPT-2's alphabet: each byte is written as a visible character."""
    hidden = [byte for byte in range(256) if byte not in _PRINTABLE]
    shifted = {chr(256 + index): byte for index, byte in enumerate(hidden)}
    return {chr(byte): byte for byte in _PRINTABLE} | shifted


def pieces(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes of every token."""
    byte_of = _byte_of()
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    return {index: bytes(byte_of[char] for char in token) for token, index in vocabulary.items()}


def _splits_as_we_do(tokenizer: Tokenizer) -> bool:
    ours = Tokenizer(models.BPE())
    ours.pre_tokenizer = _split(SPLIT)
    plain, mine = json.loads(tokenizer.to_str()), json.loads(ours.to_str())
    same = plain["pre_tokenizer"].get("pretokenizers", [])[:1] == mine["pre_tokenizer"]["pretokenizers"][:1]
    return same and plain["normalizer"] is None and not plain["model"].get("dropout")


def fast(tokenizer: Tokenizer) -> tiktoken.Encoding | None:
    """tiktoken with the same merges, or None where equal ids cannot be proved."""
    if not _splits_as_we_do(tokenizer):
        return None
    whole = Tokenizer(tokenizer.model)  # no splitting: every token's spelling is one word
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    tokens = list(vocabulary)
    alone = [encoding.ids for encoding in whole.encode_batch(tokens)]
    if alone != [[vocabulary[token]] for token in tokens]:
        return None
    ranks = {piece: index for index, piece in pieces(tokenizer).items()}
    return tiktoken.Encoding("danlu", pat_str=SPLIT, mergeable_ranks=ranks, special_tokens={})
