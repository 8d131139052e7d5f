"""Models from a config alone: the class that transformers would make, with first weights, and it learns."""

import json
import warnings
from pathlib import Path

import pytest
import torch
import transformers

from danlu import AutoModel, BertForMaskedLM, BertForSequenceClassification, GPT2LMHeadModel
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.modalities.text import Text
from danlu.model import Model
from danlu.nn.generate import Sampling
from tests.api import bert
from tests.tiny_life import RECIPE, life, project

LABELS = bert.LABELS
WISH = {"steps": 2, "lr": 0.01, "batch_tokens": 128, "precision": "fp32", "threads": 1, "quiet": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, a tokenizer, and no weights."""
    made = bert.folder(tmp_path_factory.mktemp("fresh") / "bert")
    (made / "model.safetensors").unlink()
    return made


@pytest.fixture
def config(folder: Path) -> transformers.BertConfig:
    return transformers.BertConfig.from_pretrained(folder, num_labels=3)


def test_it_is_the_model_that_transformers_makes(folder: Path, config: transformers.BertConfig, tmp_path: Path) -> None:
    ours = BertForSequenceClassification(config, tokenizer=folder)
    theirs = transformers.BertForSequenceClassification(config).eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    ours.save_pretrained(tmp_path / "saved")
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    ids = torch.tensor([[2, 7, 9, 11, 3]])
    with torch.no_grad():
        found = ours(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        assert torch.allclose(found.flatten(), theirs(ids).logits.flatten(), atol=1e-6)


def test_every_way_to_say_a_config_is_one_model(folder: Path, config: transformers.BertConfig) -> None:
    told = json.loads((folder / "config.json").read_text())
    made = [
        BertForSequenceClassification(config, tokenizer=folder),
        BertForSequenceClassification.from_config(told, tokenizer=str(folder), num_labels=3),
        BertForSequenceClassification.from_config(folder, num_labels=3),
        BertForSequenceClassification.from_config(folder / "config.json", labels=LABELS),
        AutoModel.from_config(folder, task="text_classification", num_labels=3),
    ]
    assert {type(each) for each in made} == {BertForSequenceClassification}
    first = made[0].state_dict()
    for each in made[1:]:
        assert all(tensor.equal(first[name]) for name, tensor in each.state_dict().items())
    assert made[3].task.labels == tuple(LABELS)
    other = BertForSequenceClassification(config, tokenizer=folder, seed=2).state_dict()
    assert not other["net.embed.tokens.weight"].equal(first["net.embed.tokens.weight"])


def test_it_learns_and_its_labels_are_those_of_the_rows(folder: Path, config: transformers.BertConfig) -> None:
    model = BertForSequenceClassification(config, tokenizer=folder)
    assert model.untrained
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.predict("It is the king.")
    assert told
    history = model.fit(bert.rows(), valid=bert.rows(30, 120), **bert.QUICK)
    assert not model.untrained
    assert model.task.labels == tuple(sorted(LABELS))
    assert history["loss"][-1] < history["loss"][0]


def test_a_family_by_its_name(folder: Path) -> None:
    model = AutoModel.from_config("bert", tokenizer=folder, task="masked_language_modeling", depth=2, width=32, heads=2)
    assert type(model) is BertForMaskedLM
    assert (model.architecture.core.layers, model.architecture.core.dim, model.context) == (2, 32, 512)
    grown = AutoModel.from_config("gpt2", tokenizer=folder, depth=1, width=16, heads=2, context=8)
    assert (type(grown), grown.context) == (GPT2LMHeadModel, 8)


def test_values_in_place_of_those_of_the_config(folder: Path) -> None:
    model = BertForMaskedLM.from_config(folder, num_hidden_layers=1)
    assert model.architecture.core.layers == 1


@pytest.mark.parametrize(
    ("given", "sizes", "code"),
    [
        ({"vocab_size": 5}, {}, "E328"),
        ({"model_type": "gpt2"}, {"tokenizer": True}, "E329"),
        ({"model_type": "deberta-v2"}, {"tokenizer": True}, "E322"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, {"tokenizer": True}, "E327"),
        ({"vocab_size": 5}, {"tokenizer": True}, "E328"),
        ({}, {"tokenizer": True, "num_attention_heads": 7}, "E320"),
    ],
)
def test_what_cannot_be_built_is_said(given: dict, sizes: dict, code: str, folder: Path) -> None:
    told = json.loads((folder / "config.json").read_text()) | given
    named = {"tokenizer": folder} if sizes.pop("tokenizer", False) else {}
    with pytest.raises(UserError) as problem:
        BertForSequenceClassification.from_config(told, **named, **sizes)
    assert problem.value.code == code


def test_another_family_and_sizes_that_are_none(folder: Path) -> None:
    with pytest.raises(UserError) as problem:
        GPT2LMHeadModel.from_config(folder)
    assert problem.value.code == "E341"
    with pytest.raises(UserError) as problem:
        AutoModel.from_config("bert", tokenizer=folder, colour=3)
    assert problem.value.code == "E323"


# --- without a vocabulary ---


def test_a_model_without_a_vocabulary_learns_that_of_a_recipe(tmp_path: Path) -> None:
    """The same tokens, and first weights for them, as `danlu run` from the same rows."""
    recipe = project(tmp_path / "tiny", RECIPE.replace("[tokenizer]\nvocab_size = 300\n", ""))
    folders = life(recipe).run(Silent(), "encode").folders
    wanted = Text.load(folders["encode"])
    model = AutoModel.from_config("gpt", depth=1, width=64, context=32, seed=7)
    assert model.processor.vocab_size < 300, "it reads letters until it is fitted"
    assert isinstance(model.predict("The old king", Sampling(max_tokens=2)), str)
    model.fit(recipe.parent / "texts", **WISH, split={"valid": 0.05, "test": 0.05})
    assert model.processor._tokenizer.to_str() == wanted._tokenizer.to_str()
    assert model.architecture.tokens.vocab == wanted.vocab_size > 300
    model.save_pretrained(tmp_path / "saved")
    opened = AutoModel.from_pretrained(tmp_path / "saved")
    assert opened.predict("The", Sampling(max_tokens=3)) == model.predict("The", Sampling(max_tokens=3))
    learned = model.processor
    model.fit(recipe.parent / "texts", **WISH)
    assert model.processor.vocab_size == learned.vocab_size, "once: what its weights know stays"
    first = AutoModel.from_config("gpt", depth=1, width=64, context=32, seed=7)
    first.grow(folders["encode"], 7)
    scratch = Model.from_architecture(first.architecture, wanted, "language_modeling", 7).net.state_dict()
    assert all(tensor.equal(scratch[name]) for name, tensor in first.net.state_dict().items())


def test_a_class_and_a_config_of_transformers_learn_words_too() -> None:
    shape = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64
    )
    model = BertForSequenceClassification(shape)
    model.freeze("embed.types")
    model.fit(bert.rows(60), **WISH)
    assert model.processor.kind == "wordpiece"
    assert 60 < model.architecture.tokens.vocab < 30522, "no more than there are"
    assert model.task.labels == tuple(sorted(LABELS))
    assert {name for name, p in model.net.named_parameters() if not p.requires_grad} == {"embed.types.weight"}
    small = BertForSequenceClassification(shape, vocab_size=200)
    small.fit(bert.rows(60), **WISH)
    assert small.architecture.tokens.vocab == small.processor.vocab_size <= 200


def test_numbers_have_no_words_to_learn() -> None:
    model = AutoModel.from_config("gpt", depth=1, width=64, context=32)
    with pytest.raises(UserError, match="E336"):
        model.fit([{"input_ids": [1, 2, 3]}] * 4, **WISH)
    with pytest.raises(UserError, match="E336"):
        AutoModel.from_config("cnn", task="image_classification")
