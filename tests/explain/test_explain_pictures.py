"""Why a picture is taken for what it is: the parts add up, and the regions that matter are named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from danlu import AutoModel, Model, cli, files, models
from danlu.explain import explain
from danlu.explain.pictures import Seen, drawn
from danlu.modalities.image import Image
from danlu.model import Model as Whole
from danlu.models.architecture import build
from danlu.tasks.image_classification import ImageClassification

LABELS, SIZE = ("left", "right", "none"), 16


def model_of(arch: str, size: int = SIZE) -> Whole:
    processor = Image(size, [0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    patches = {"heads": 2, "width": 32, "patch": 4}
    sizes = {"vit": patches, "ijepa": patches, "cnn": {"width": 16}, "resnet": {"width": 16}, "mlp": {}}
    task = ImageClassification(processor, LABELS)
    shape = task.shaped(models.preset(arch, 0, 1, 2 if sizes[arch] is patches else 1, **sizes[arch], **processor.sizes))
    net = build(shape, torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        net.head.output.weight.mul_(4)  # type: ignore[union-attr,operator]
    return Model(net, shape, task)


def row(seed: int = 1, size: int = SIZE) -> dict[str, str]:
    pixels = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (size, size, 3), np.uint8)
    return {"image": Image(size, [0.5] * 3, [0.5] * 3).decode(pixels.transpose(2, 0, 1))}


@pytest.mark.parametrize("arch", ["vit", "ijepa", "cnn", "resnet", "mlp"])
def test_the_parts_of_pixels_and_regions_add_up(arch: str) -> None:
    model = model_of(arch)
    found = explain(model, row(3))
    assert isinstance(found.seen, Seen)
    difference = found.number - found.blank
    assert abs(difference) > 1 and abs(found.gap) <= 0.02 * abs(difference)
    assert found.seen.parts.sum() == pytest.approx(difference + found.gap, abs=1e-9)
    assert sum(found.scores["gradients"]) == pytest.approx(found.seen.parts.sum(), abs=1e-9)
    assert found.seen.image.shape == (SIZE, SIZE, 3)
    patches = arch in ("vit", "ijepa")
    across = 4 if patches else 8
    assert (found.seen.across, len(found.words)) == (across, across**2 + (arch == "vit"))
    grid = found.seen.parts.reshape(across, SIZE // across, across, SIZE // across).sum((1, 3)).flatten()
    np.testing.assert_allclose(found.scores["gradients"][arch == "vit" :], grid, atol=1e-9)
    assert ("attention" in found.scores) == patches
    assert sum(found.scores.get("attention", [1.0])) == pytest.approx(1)
    with torch.no_grad():
        batch = model.processor.scaled({"pixel_values": torch.from_numpy(found.seen.image.transpose(2, 0, 1)[None])})
        assert found.number == pytest.approx(float(model.net(batch).max()), abs=1e-5)
    assert json.loads(json.dumps(found.table()))["regions"] == {"side": found.seen.side, "across": across}


def test_a_linear_network_is_shared_out_by_its_weights() -> None:
    """In closed form: the part of a pixel is w (x - x') over its channels."""
    model = model_of("mlp")
    core = model.net.core
    core.blocks, core.config = torch.nn.ModuleList(), replace(core.config, layers=0)
    model.net.core.norm = None
    weights = model.net.embed.project.weight.flatten(1)  # type: ignore[union-attr,operator]
    found = explain(model, row(), "right")
    (example,) = model.task.asking(row())
    (blank,) = model.task.blanks(example)
    scaled = [model.processor.scaled({"pixel_values": torch.from_numpy(each["pixel_values"])[None]})["pixel_values"]
              for each in (example, blank)]  # fmt: skip
    slope = model.net.head.output.weight[1] @ weights  # type: ignore[union-attr,operator]
    wanted = (slope.view(3, SIZE, SIZE) * (scaled[0] - scaled[1])[0].double()).sum(0).detach().numpy()
    np.testing.assert_allclose(found.seen.parts, wanted, atol=1e-5)


def test_another_class_can_be_asked_for() -> None:
    model = model_of("vit")
    assert explain(model, row(), "none").name == "none"


def spot(side: str, seed: int) -> np.ndarray:
    """Noise, and a bright spot on one side."""
    random = np.random.Generator(np.random.PCG64([seed, LABELS.index(side)]))
    pixels = random.integers(60, 120, (SIZE, SIZE, 3)).astype(np.uint8)
    if side != "none":
        down, right = random.integers(1, SIZE - 5), random.integers(0, 3) + (1 if side == "left" else SIZE - 8)
        pixels[down : down + 4, right : right + 4] = 250
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT that has learned on which side a bright spot is."""
    root = tmp_path_factory.mktemp("spots")
    rows = []
    for index in range(300):
        side = LABELS[index % 3]
        picture = Image(SIZE, [0.5] * 3, [0.5] * 3).decode(spot(side, index).transpose(2, 0, 1))
        rows.append({"image": picture, "label": side})
    processor = Image.fit(row["image"] for row in rows)
    shape = models.preset("vit", 0, 1, 1, patch=4, **processor.sizes)
    Model.from_architecture(shape, processor, "image_classification", 1, LABELS).save_pretrained(root / "base")
    model = AutoModel.from_pretrained(root / "base")
    model.fit(rows, steps=80, lr=3e-3, batch_tokens=32, precision="fp32", quiet=True, threads=1)
    model.save_pretrained(root / "spots")
    return root / "spots"


def test_the_region_that_is_named_first_holds_the_spot(folder: Path) -> None:
    model, hits, sooner = Model.from_pretrained(folder), [], []
    for index in range(1000, 1012):
        pixels = spot(("left", "right")[index % 2], index)
        found = explain(model, {"image": model.processor.decode(pixels.transpose(2, 0, 1))})
        scores = [-9.0 if word.fixed else found.scores["gradients"][place] for place, word in enumerate(found.words)]
        best = int(np.argmax(scores)) - 1
        at = divmod(best, 4)
        hits.append(bool((pixels[at[0] * 4 : at[0] * 4 + 4, at[1] * 4 : at[1] * 4 + 4] == 250).any()))
        sooner.append(found.faithfulness["gradients"])
    assert sum(hits) >= 9
    assert np.mean(sooner) > 0.05, "without these regions the answer falls sooner than without any"


def test_the_command_writes_a_picture_beside(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "photo.png"
    Pillow.fromarray(spot("left", 77)).save(path)
    assert cli.main(["explain", str(folder), str(path), "--page", str(tmp_path / "why.html")]) == 0
    told = capsys.readouterr().out
    assert str(tmp_path / "photo-why.png") in told
    assert "attention rollout" in told
    with Pillow.open(tmp_path / "photo-why.png") as image:
        assert image.size == (3 * 256 + 2 * 8, 256)
    assert 'src="data:image/png;base64,' in (tmp_path / "why.html").read_text("utf-8")
    assert cli.main(["explain", str(folder), str(path), "--json", "--target", "right"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["explained"] == "right"
    assert said["picture"] == str(tmp_path / "photo-why.png")


def test_from_python(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Pillow.fromarray(spot("right", 78)).save(path)
    found = AutoModel.from_pretrained(folder).explain(path)
    found.save(tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == found.picture
    shown = drawn(found)
    orange = (shown[..., 0].astype(int) - shown[..., 2]) > 60
    assert orange[:, 264:].any()
    assert files.sha256(tmp_path / "out.png")
    assert "<img" in found._repr_html_()
