"""Named sizes are those that the field knows by these names, and say the same as their depth and width."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from torch import nn

from danlu import catalogue, models
from danlu.config import Recipe, Train
from danlu.errors import UserError
from danlu.models.architecture import empty
from danlu.recipe import Loaded, load_recipe, resolved
from danlu.train import size

NAMED = {form: sizes for form in catalogue.forms() if (sizes := catalogue.of_family(form, "SIZES"))}
HEAD = 'task = "image_classification"\n[data]\npath = "x"\n'


def built(model: dict[str, str], image: int, labels: int = 10) -> nn.Module:
    """The network of a recipe's model, without memory for its weights."""
    recipe = Recipe.model_validate({"task": "image_classification", "data": {"path": "x"}, "model": model})
    section = recipe.backbone.model_copy(update={"context": 1})
    shape = size.architecture(section, Train(), 0, 0, seen={"image": image, "channels": 3})
    return empty(replace(shape, head=models.label_head(shape, labels)))


def weights(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("name", "count"), [("tiny", 5_717_416), ("small", 22_050_664), ("base", 86_567_656), ("large", 304_326_632)]
)
def test_a_vit_has_the_parameters_of_its_name(name: str, count: int) -> None:
    """224 pixels in patches of 16, and 1,000 labels, as the articles count them."""
    assert weights(built({"arch": "vit", "size": name}, 224, 1000)) == count


@pytest.mark.parametrize("name", NAMED["resnet"])
def test_a_resnet_has_the_layers_of_its_name(name: str) -> None:
    """All that learn, but for those around a block; table 6 of the article rounds millions of parameters."""
    net = built({"arch": "resnet", "size": name}, 32)
    around = {module for place, module in net.named_modules() if place.endswith("around")}
    layers = [each for each in net.modules() if hasattr(each, "weight") and getattr(each.weight, "ndim", 0) > 1]
    assert len([each for each in layers if each not in around]) == int(name)
    millions = {"18": 11.17, "20": 0.27, "32": 0.46, "44": 0.66, "56": 0.85, "110": 1.7}[name]
    assert weights(net) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize("arch", NAMED)
def test_sizes_are_named_from_the_smallest_on(arch: str) -> None:
    counted = [weights(built({"arch": arch, "size": name}, 64)) for name in NAMED[arch] if name != "18"]
    assert all(one < other for one, other in pairwise(counted))


@pytest.mark.parametrize("arch", ["cnn", "mlp"])
def test_danlu_s_own_base_is_the_usual_one(arch: str) -> None:
    assert weights(built({"arch": arch, "size": "base"}, 32)) == weights(built({"arch": arch}, 32))


def loaded(folder: Path, model: str) -> Loaded:
    (folder / "recipe.toml").write_text(HEAD + f"[model]\n{model}\n", "utf-8")
    return load_recipe(folder / "recipe.toml")


def test_a_name_is_what_it_says(tmp_path: Path) -> None:
    """Written out it is the same model, by the same key, and the saved recipe can be read again."""
    named = loaded(tmp_path, 'arch = "resnet"\nsize = 20')
    saved = resolved(named, tmp_path / "run", {("model", "depth"): 3})
    written = loaded(tmp_path, 'arch = "resnet"\ndepth = 3\nwidth = 16\nstages = 3')
    assert named.recipe.backbone == written.recipe.backbone
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "danlu.toml").write_text(saved, "utf-8")
    assert load_recipe(tmp_path / "run" / "danlu.toml").recipe.backbone == written.recipe.backbone


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ('arch = "vit"\nsize = "huge"', "tiny, small, base, large"),
        ('arch = "resnet"\nsize = 50', "18, 20, 32"),
        ('size = "base"\nwidth = 48', "model.width"),
        ('arch = "vit"\nsize = "tiny"\ndepth = 12', "model.depth"),
        ('arch = "resnet"\nstages = 9', "E323"),
        ('arch = "vit"\nstages = 3', "model.stages"),
        ('arch = "cnn"\nhidden = 9', "model.hidden"),
    ],
)
def test_what_a_name_contradicts_is_said(tmp_path: Path, model: str, wanted: str) -> None:
    def asked() -> None:
        section = loaded(tmp_path, model).recipe.backbone
        size.architecture(section, Train(), 0, 0, seen={"image": 32, "channels": 3})

    with pytest.raises(UserError) as refused:
        asked()
    assert wanted in f"{refused.value.code} {refused.value.render()}"


def test_a_form_without_names_says_so(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('task = "language_modeling"\n[data]\npath = "x"\n[model]\nsize = "base"\n')
    with pytest.raises(UserError, match="gpt has no named sizes"):
        load_recipe(tmp_path / "recipe.toml")
