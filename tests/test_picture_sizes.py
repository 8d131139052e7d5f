"""A network for pictures is given others than it was made for: its places are interpolated as transformers does."""

import base64
from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

from danlu import Model, files, models
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.modalities.image import Image
from danlu.nn.stems import PatchesConfig, resampled
from danlu.recipe import load_recipe
from tests.models.stock import randomised
from tests.tiny_pictures import KINDS, folders, pixels, recipe, saved

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
MADE, PATCH = 16, 4


@pytest.mark.parametrize("size", [12, 16, 18, 24, 37])
def test_places_are_those_of_transformers(size: int) -> None:
    theirs = randomised(ViTModel(ViTConfig(**SIZES, image_size=MADE, patch_size=PATCH))).double().eval()
    table = theirs.embeddings.position_embeddings.detach()
    squares = (size // PATCH) ** 2
    wanted = theirs.embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + squares, 32).double(), size, size)
    found = resampled(table[0], 1, PatchesConfig(size, PATCH))
    assert found.shape == wanted.detach()[0].shape
    assert float((found - wanted[0]).detach().abs().max()) <= 1e-12


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of transformers for pictures of 16 pixels, whose places differ much."""
    folder = tmp_path_factory.mktemp("stock")
    names = dict(enumerate(KINDS))
    shape = ViTConfig(
        **SIZES, image_size=MADE, patch_size=PATCH, id2label=names, label2id={v: k for k, v in names.items()}
    )
    randomised(ViTForImageClassification(shape)).save_pretrained(folder)
    ViTImageProcessor(size={"height": MADE, "width": MADE}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("size", [8, 24, 48])
def test_answers_are_those_of_transformers(stock: Path, size: int) -> None:
    ours = Model.from_pretrained(stock)
    grown = ours.grown(ours.processor.adjusted(size=size), 1).eval()
    theirs = ViTForImageClassification.from_pretrained(stock).eval()
    value = base64.b64encode(saved(Pillow.fromarray(pixels("down", 3, 60)), "PNG")).decode()
    seen = torch.from_numpy(grown.processor.encode(value))[None]
    batch = grown.processor.scaled({"pixel_values": seen})
    with torch.no_grad():
        found = grown.net(batch)
        wanted = theirs(batch["pixel_values"], interpolate_pos_encoding=True).logits
    assert float((found - wanted).abs().max()) <= 1e-5
    assert float(wanted.std()) > 0.05
    with pytest.raises(ValueError, match="made for"):
        ours.eval().net(batch)
    if size < MADE:  # while it learns, as if it had been made for them
        assert torch.equal(ours.train().net(batch), found)


def test_a_base_is_tuned_at_another_size(stock: Path, tmp_path: Path) -> None:
    folders(tmp_path / "set", 30)
    train = f'[model]\nbase = "{stock}"\n[train]\nsteps = 30\nlr = 2e-3\nbatch_tokens = 16\nprecision = "fp32"\n'
    data = 'path = "set"\nsplit = { valid = 0.1, test = 0.2 }'
    made = recipe(tmp_path, data, "[options]\nsize = 24\n", train).run(Silent()).folders
    assert files.read_json(made["evaluate"] / "metrics.json")["models"]["base"]["accuracy"] > 0.7
    assert files.read_json(made["finetune"] / "config.json")["image_size"] == 24
    theirs, ours = (kind.from_pretrained(made["finetune"]) for kind in (ViTForImageClassification, Model))
    batch = ours.processor.scaled({"pixel_values": torch.full((1, 3, 24, 24), 90, dtype=torch.uint8)})
    with torch.no_grad():
        torch.testing.assert_close(ours.net(batch), theirs.eval()(batch["pixel_values"]).logits, rtol=0, atol=3e-5)
    with pytest.raises(UserError, match="E350"):
        Life(load_recipe(tmp_path / "recipe.toml", ["options.size=3"])).run(Silent())


def test_convolutions_see_any_size_and_an_mlp_one() -> None:
    processor = Image(12, [0.5] * 3, [0.2] * 3)
    for arch in ("cnn", "mlp"):
        shape = models.preset(arch, 0, 1, 1, width=16, **processor.sizes)
        model = Model.from_architecture(shape, processor, "image_classification", 1, KINDS)
        if arch == "mlp":
            with pytest.raises(UserError, match="E350"):
                model.grown(processor.adjusted(size=20), 1)
            continue
        larger = model.grown(processor.adjusted(size=20), 1)
        assert (larger.processor.size, larger.architecture.embed.image) == (20, 20)  # type: ignore[union-attr]
        assert larger.judge([{"image": base64.b64encode(saved(Pillow.fromarray(pixels("down", 3)), "PNG")).decode()}])
