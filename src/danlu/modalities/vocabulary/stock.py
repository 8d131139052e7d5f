"""The tokenizers in other libraries' model folders, in whichever of their four layouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from danlu.modalities.vocabulary import sentencepiece

ROLES = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ROBERTA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"}
_GPT2 = {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"}
_PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm")


def load(folder: Path) -> Tokenizer:
    """The tokenizer of a folder: tokenizer.json, or vocab.txt, or vocab.json with merges.txt, or a SentencePiece model.

    Raises:
        OSError, ValueError, KeyError: none of them is there, or the one that is makes no sense.
    """
    if (folder / "tokenizer.json").exists():
        return Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8"))
    settings = _settings(folder)
    if (folder / "vocab.txt").exists():
        return _wordpiece(folder, settings)
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return _byte_level(folder, settings)
    for name in _PIECES:
        if (folder / name).exists():
            return sentencepiece.build((folder / name).read_bytes())
    raise FileNotFoundError(2, "tokenizer.json")


def roles(folder: Path) -> dict[str, str]:
    """{role: token} of the tokens that a model is spoken to with, as the folder says."""
    said = _settings(folder)
    return {role: token for role in ROLES if (token := _content(said.get(f"{role}_token")))}


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, and what older folders say in special_tokens_map.json."""
    said: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            read = json.loads((folder / name).read_text("utf-8"))
            said |= {key: value for key, value in read.items() if value is not None}
    return said


def _content(token: Any) -> str:
    """Tokens stand as strings, or as tables with their ways of matching."""
    return str(token.get("content", "")) if isinstance(token, Mapping) else str(token or "")


def _named(settings: Mapping[str, Any], usual: Mapping[str, str]) -> dict[str, str]:
    return {role: _content(settings.get(f"{role}_token")) or token for role, token in usual.items()}


def _wordpiece(folder: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """BERT's: one token per line."""
    lines = (folder / "vocab.txt").read_text("utf-8").splitlines()
    vocabulary = {token.rstrip("\n"): index for index, token in enumerate(lines)}
    named = _named(settings, _BERT)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=named["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    first, last = named["cls"], named["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(name, vocabulary[name]) for name in (first, last)],
    )
    return _with_special(tokenizer, named)


def _byte_level(folder: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """GPT-2's, or RoBERTa's where the vocabulary has its tokens."""
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    lines = (folder / "merges.txt").read_text("utf-8").split("\n")
    merges = [
        (pair[0], pair[1]) for line in lines if not line.startswith("#version") and len(pair := line.split(" ")) == 2
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    spaced = bool(settings.get("add_prefix_space", False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    tokenizer.decoder = decoders.ByteLevel()
    named = _named(settings, _ROBERTA if "<s>" in vocabulary else _GPT2)
    if "cls" in named:
        first, last = ((named[role], vocabulary[named[role]]) for role in ("cls", "sep"))
        tokenizer.post_processor = processors.RobertaProcessing(last, first, add_prefix_space=spaced)
    return _with_special(tokenizer, named)


def _with_special(tokenizer: Tokenizer, named: Mapping[str, str]) -> Tokenizer:
    """Its control tokens marked as such; names that the vocabulary lacks are left out."""
    known = [token for token in dict.fromkeys(named.values()) if tokenizer.token_to_id(token) is not None]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in known])
    return tokenizer
