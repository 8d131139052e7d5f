"""One token per character; characters outside the vocabulary are spelled in their UTF-8 bytes."""

import re

from tokenizers import Tokenizer, decoders, models

from danlu.modalities.vocabulary.sample import characters

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def train(texts: list[str], size: int) -> Tokenizer:
    """A tokenizer of the 256 bytes and the most frequent characters, `size` tokens at most."""
    spellings = [f"<0x{byte:02X}>" for byte in range(256)]
    common = [char for char, _ in characters(texts)][: size - 256]
    vocabulary = {token: index for index, token in enumerate([*spellings, *common])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def pieces(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes of every token."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    return {index: _bytes(token) for token, index in vocabulary.items()}


def _bytes(token: str) -> bytes:
    spelled = _BYTE.fullmatch(token)
    return bytes([int(spelled[1], 16)]) if spelled else token.encode()
