"""Folders of every kind open as networks; a backbone takes a new head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from danlu.errors import UserError
from danlu.models.folder import open_network
from danlu.nn.heads import LabelConfig
from tests.models.pairs import answer, difference, here
from tests.models.stock import ids, randomised

SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48
}  # fmt: skip
WHISPER: dict[str, Any] = {
    "vocab_size": 97, "d_model": 32, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 96,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0,
    "decoder_start_token_id": 0, "begin_suppress_tokens": None, "suppress_tokens": None,
}  # fmt: skip


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator())


CASES: dict[str, tuple[Callable[[], Any], dict[str, Tensor]]] = {
    "vit": (
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**SMALL, image_size=16, patch_size=4, num_labels=5)),
        {"pixel_values": noise(2, 3, 16, 16)},
    ),
    "whisper": (
        lambda: hf.WhisperForConditionalGeneration(hf.WhisperConfig(**WHISPER)),
        {"input_features": noise(2, 8, 20), "decoder_input_ids": ids(2, 9)},
    ),
    "llama": (
        lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, vocab_size=97, pad_token_id=1, num_key_value_heads=1)),
        {"input_ids": ids(2, 9)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_they_saved_opens(name: str, tmp_path: Path) -> None:
    theirs, batch = CASES[name]
    theirs = randomised(theirs()).float()
    theirs.save_pretrained(tmp_path)
    network, _ = open_network(tmp_path, generator())
    with torch.no_grad():
        assert difference(here(network, **batch), answer(theirs(**batch))) < 1e-4


def test_a_backbone_takes_a_new_head(tmp_path: Path) -> None:
    theirs = randomised(CASES["llama"][0]()).float()
    theirs.save_pretrained(tmp_path)
    head = LabelConfig(4, "last", bias="none")
    one, architecture = open_network(tmp_path, generator(), head)
    same, _ = open_network(tmp_path, generator(), head)
    whole, _ = open_network(tmp_path, generator())
    assert architecture.head == head
    assert here(one, input_ids=ids(2, 9)).shape == (2, 4)
    assert all(tensor.equal(same.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert one.hidden({"input_ids": ids(2, 9)}).equal(whole.hidden({"input_ids": ids(2, 9)}))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model_type": "mamba"}'])
def test_configs_that_make_no_sense(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError) as caught:
        open_network(tmp_path, generator())
    assert caught.value.code in ("E301", "E322")
