"""A BERT of two layers that saw nothing, as transformers saves it, and sentences whose last word is their class."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.tiny_life import sentences

LABELS = ["king", "queen", "ship"]
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] , . it is the"
SIZES: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.0,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
QUICK: dict[str, Any] = {"steps": 40, "lr": 0.01, "batch_tokens": 256, "precision": "fp32", "threads": 1, "quiet": True}


def rows(count: int = 120, start: int = 0) -> list[dict[str, str]]:
    """Rows whose class is said by one word."""
    made = sentences(start + count)[start:]
    return [{"text": f"{each} It is the {LABELS[i % 3]}.", "label": LABELS[i % 3]} for i, each in enumerate(made)]


def folder(path: Path, stock: str = "BertModel", **config: Any) -> Path:
    """Write the folder of a model class of transformers; returns its path."""
    words = dict.fromkeys([*WORDS.split(), *LABELS])
    words |= dict.fromkeys(
        word for each in sentences(400) for word in each.lower().replace(",", " ,").strip(".").split()
    )
    path.mkdir(parents=True)
    (path / "vocab.txt").write_text("\n".join(words), "utf-8")
    tokenizer = transformers.BertTokenizerFast(str(path / "vocab.txt"))
    shape = transformers.BertConfig(**{"vocab_size": len(words), "max_position_embeddings": 64, **SIZES, **config})
    transformers.set_seed(1)
    getattr(transformers, stock)(shape).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def classifier(path: Path) -> Path:
    """Write the folder of a classifier of three labels whose weights are far from zero; returns its path."""
    folder(path, "BertForSequenceClassification", num_labels=3)
    model = transformers.BertForSequenceClassification.from_pretrained(path)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())), alpha=0.2)
    model.save_pretrained(path)
    return path


def jsonl(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), "utf-8")
    return path
