"""Pictures of which most is hidden: painted again, then tuned to tell classes; the same after a kill, however cut."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from transformers import ViTForImageClassification, ViTMAEForPreTraining

from danlu import Model, cli, files
from danlu.graph import Life, Silent
from danlu.nn.hiding import patches
from danlu.recipe import load_recipe
from tests.test_options import CASES
from tests.tiny_pictures import (
    KINDS,
    changed,
    folders,
    goes_on_once_stopped,
    is_exact,
    is_forecast,
    learns_the_same_in_parts,
    pixels,
    recipe,
    row,
    saved,
    train,
)

DATA = 'path = "set"\nsplit = { valid = 0.1, test = 0.1 }'
TUNED = """
[finetune]
task = "image_classification"
data = "few"
steps = 40
lr = 0.003
"""


def project(folder: Path, more: str = "", *keys: str) -> Life:
    folders(folder / "set", 60)
    folders(folder / "few", 30, 200)
    how = train('arch = "vit"\ndepth = 1\npatch = 2', steps=40, lr=0.003)
    return changed(recipe(folder, DATA, more, how, "masked_image_modeling"), *keys)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    life = project(tmp_path_factory.mktemp("masked"), TUNED, "options.share=0.5", "pretrain.steps=260")
    return dict(life.run(Silent()).folders)


def test_it_paints_better_than_each_patch_in_its_mean(lived: dict[str, Path]) -> None:
    """Stripes are known from the few patches that are seen."""
    told = files.read_json(lived["evaluate"] / "metrics.json")["models"]["base"]
    assert told["variance_painted"] > 0.1
    assert told["loss"] < 0.85
    assert ViTMAEForPreTraining.from_pretrained(lived["pretrain"]).config.norm_pix_loss


def test_its_encoder_is_tuned_for_classes(lived: dict[str, Path]) -> None:
    told = files.read_json(lived["evaluate"] / "metrics.json")
    assert told["answers"]["tuned"]["accuracy"] > 0.7
    assert list(ViTForImageClassification.from_pretrained(lived["finetune"]).config.id2label.values()) == list(KINDS)


@pytest.mark.parametrize("tune", ["head", "last-1", "lora"])
def test_all_ways_of_tuning_reach_it(lived: dict[str, Path], tmp_path: Path, tune: str) -> None:
    (tmp_path / "recipe.toml").write_text(
        f'task = "image_classification"\n[data]\npath = "few"\n[model]\nbase = "{lived["pretrain"]}"\n'
        f'[finetune]\ntune = "{tune}"\nsteps = 3\nlr = 0.003\nbatch_tokens = 16\nprecision = "fp32"\n', "utf-8",
    )  # fmt: skip
    folders(tmp_path / "few", 20)
    made = Life(load_recipe(tmp_path / "recipe.toml")).run(Silent(), "finetune").folders["finetune"]
    before, after = (Model.from_pretrained(each).net for each in (lived["pretrain"], made))
    first = "core.blocks.0.attention.inner.q.weight"
    assert before.embed.token.equal(after.embed.token)  # type: ignore[union-attr,arg-type]
    assert before.state_dict()[first].equal(after.state_dict()[first]) == (tune == "head")
    assert torch.is_tensor(after.state_dict()["head.output.weight"])


def test_what_is_hidden_is_a_function_of_epoch_and_picture() -> None:
    lots = torch.randint(-(2**62), 2**62, (50,), generator=torch.Generator().manual_seed(1))
    whole = patches(lots, 49, 12)
    assert whole.equal(torch.cat([patches(lots[:7], 49, 12), patches(lots[7:], 49, 12)]))
    assert bool((whole[:, 1:] > whole[:, :-1]).all())
    assert len({tuple(each) for each in whole.tolist()}) == 50
    counts = patches(torch.arange(4000), 49, 12).flatten().bincount(minlength=49) / 4000
    assert float((counts - 12 / 49).abs().max()) < 0.03, "every patch as often"


OPTIONS = [option for option in CASES["masked_image_modeling"] if option != "size"]


def test_every_option_changes_the_weights(tmp_path: Path) -> None:
    path, found = project(tmp_path).loaded.path, []
    for option in ("", *OPTIONS):
        value = json.dumps(CASES["masked_image_modeling"].get(option))
        keys = ["train.steps=2", *([f"options.{option}={value}"] if option else [])]
        made = Life(load_recipe(path, keys)).run(Silent(), "pretrain").folders["pretrain"]
        found.append(files.sha256(made / "model.safetensors"))
    assert len(set(found)) == len(found)
    encoded = Life(load_recipe(path, ["options.size=8"])).run(Silent(), "encode").folders["encode"]
    assert files.read_json(encoded / "preprocessor_config.json")["size"]["height"] == 8


def test_micro_batches_hide_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("train.steps=6", "options.crop=2", "options.flip=true", "train.optimizer=sgd", "train.lr=0.05")
    learns_the_same_in_parts(project(tmp_path), monkeypatch, *keys, parts=(1, 4))


def test_killed_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("options.crop=2", "options.flip=true", "train.average=0.9", "train.dropout=0.1")
    goes_on_once_stopped(lambda folder, *more: project(folder, "", *keys, *more), tmp_path, monkeypatch)


def test_its_training_is_exact(tmp_path: Path) -> None:
    is_exact(project(tmp_path), "options.flip=true")


def _array(written: str) -> np.ndarray:
    with Pillow.open(io.BytesIO(base64.b64decode(written))) as image:
        return np.asarray(image).astype(int)


def test_a_picture_is_shown_as_it_is_painted(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen stays as it was; the same is hidden at every look."""
    monkeypatch.chdir(tmp_path)
    path, asked = tmp_path / "asked.png", row(pixels("down", 500))
    path.write_bytes(saved(pixels("down", 500)))
    model = Model.from_pretrained(lived["pretrain"])
    said, again = model.judge([asked])[0], model.judge([asked, asked])[1]
    assert said["painted"] == again["painted"]
    painted, seen = (_array(said[name])
                     for name in ("painted", "seen"))  # fmt: skip
    given = pixels("down", 500).astype(int)
    hidden = (seen == 128).all(-1)
    assert float(hidden.mean()) == pytest.approx(0.5, abs=0.02)
    assert np.abs(painted - given)[~hidden].max() <= 1
    assert 0 < np.abs(painted - given)[hidden].mean() < np.abs(given - 128)[hidden].mean()
    assert cli.main(["predict", str(lived["pretrain"]), str(path)]) == 0
    told = capsys.readouterr().out
    for name in ("painted", "seen"):
        file = tmp_path / f"asked-{name}.png"
        assert file.name in told
        with Pillow.open(file) as image:
            assert image.size == (12, 12)


def test_plan_forecasts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    is_forecast(project(tmp_path, TUNED), capsys, stages=8)
