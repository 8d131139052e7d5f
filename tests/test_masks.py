"""The life of masks: pictures and masks in, a class of each pixel out; files that do not fit are named."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from danlu import files, pixels
from danlu.data import masks, starter
from danlu.data.columns import Columns
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from tests import tiny_pictures, tiny_task
from tests.tiny_pictures import coloured, saved

VOID = 11


def drawn(seed: int, side: int = 16, wide: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A bright and a dark thing on grey, and where they are: 0 ground, 4 bright, 7 dark, 11 along the upper edge."""
    random = np.random.Generator(np.random.PCG64(seed))
    picture, mask = np.full((side, wide), 120.0), np.zeros((side, wide), np.uint8)
    for number, grey in ((4, 230), (7, 20)):
        top, left = (int(random.integers(1, end - 6)) for end in (side, wide))
        picture[top : top + 6, left : left + 6], mask[top : top + 6, left : left + 6] = grey, number
    mask[0] = VOID
    picture += random.normal(0, 8, picture.shape)
    return coloured(picture), mask


def files_of(images: Path, masked: Path, count: int, start: int = 0) -> None:
    for folder in (images, masked):
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(start, start + count):
        picture, mask = drawn(index)
        Pillow.fromarray(picture).save(images / f"{index:03d}.png")
        Pillow.fromarray(mask).save(masked / f"{index:03d}.png")


DATA = """path = ["set/train", "set/trainannot"]
test = ["set/test", "set/testannot"]
split = { valid = 0.1, test = 0.0 }
void = 11"""


def recipe(folder: Path, data: str = DATA, more: str = "") -> Life:
    return tiny_pictures.recipe(folder, data, more, task="segmentation")


def project(folder: Path, more: str = "") -> Life:
    files_of(folder / "set" / "train", folder / "set" / "trainannot", 40)
    files_of(folder / "set" / "test", folder / "set" / "testannot", 8, 100)
    return recipe(folder, more=more)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("masks")).run(Silent()).folders)


def test_it_learns_the_class_of_each_pixel(lived: dict[str, Path]) -> None:
    told = files.read_json(lived["evaluate"] / "metrics.json")
    base, usual = (told["models"][name] for name in ("base", "usual"))
    assert base["mean_iou"] > 0.7
    assert usual["mean_iou"] < 0.5
    assert base["mean_iou"] < base["dice"] < base["pixel_accuracy"]
    low, high = told["intervals"]["models"]["base"]["mean_iou"]
    assert low <= base["mean_iou"] <= high
    assert [each["label"] for each in told["each"]] == ["0", "4", "7"]
    assert sum(each["rows"] for each in told["each"]) == 8 * 15 * 20, "pixels of no class are not measured"


def test_masks_are_kept_nearest_and_void_is_none(lived: dict[str, Path]) -> None:
    columns = Columns(lived["encode"] / "columns" / "test")
    assert columns.shape("pixel_labels") == (16, 16)
    kept = {columns.row(index)["pixel_labels"].tobytes() for index in range(len(columns))}
    table = np.full(256, 255, np.uint8)
    table[[0, 4, 7]] = [0, 1, 2]
    shown = [Pillow.fromarray(table[drawn(index)[1]]) for index in range(100, 108)]
    assert kept == {np.asarray(each.resize((16, 16), Pillow.Resampling.NEAREST)).tobytes() for each in shown}


@pytest.mark.parametrize("size", [(16, 20), (7, 40), (40, 7), (15, 13)])
def test_masks_are_resized_as_pillow_does_it(size: tuple[int, int]) -> None:
    mask = np.random.Generator(np.random.PCG64(2)).integers(0, 9, (15, 13), np.uint8)
    theirs = Pillow.fromarray(mask).resize(size[::-1], Pillow.Resampling.NEAREST)
    np.testing.assert_array_equal(pixels.resized(mask, *size), np.asarray(theirs))


def test_a_mask_is_written_where_one_works_and_served(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, truth = drawn(500, 24, 32)
    said = tiny_pictures.predicted(lived["pretrain"], picture, tmp_path, capsys, monkeypatch)
    assert said["mask"] == "asked-mask.png"
    image = Pillow.open(said["mask"])
    assert (image.size, image.mode) == ((32, 24), "P")
    assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) == 3, "each class has its colour"
    numbers = np.asarray(image)
    assert set(np.unique(numbers)) == {0, 4, 7}
    assert float((numbers == truth)[1:].mean()) > 0.85
    assert sum(said["classes"].values()) == pytest.approx(1.0)
    served = tiny_pictures.served(lived["pretrain"], picture)
    np.testing.assert_array_equal(pixels.classes(base64.b64decode(served["mask"])), numbers)


def test_a_file_of_that_name_stays_as_it_is(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both pictures get the next number that is free; what would be the same file is not written twice."""

    def names(seed: int) -> tuple[str, str]:
        said = tiny_pictures.predicted(lived["pretrain"], drawn(seed)[0], tmp_path, capsys, monkeypatch)
        return said["mask"], said["drawn"]

    (tmp_path / "here").mkdir()
    kept = tmp_path / "here" / "asked-drawn.png"
    kept.write_bytes(b"one's own")
    assert names(500) == names(500) == ("asked-mask-2.png", "asked-drawn-2.png")
    assert names(501) == ("asked-mask-3.png", "asked-drawn-3.png")
    assert names(500) == ("asked-mask-2.png", "asked-drawn-2.png")
    assert kept.read_bytes() == b"one's own"
    assert len(list(kept.parent.iterdir())) == 5


def test_the_palette_is_that_of_pascal_voc() -> None:
    image = Pillow.open(io.BytesIO(pixels.coloured(np.arange(16, dtype=np.uint8).reshape(4, 4)))).convert("RGB")
    wanted = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    colours = np.asarray(image).reshape(-1, 3).tolist()
    assert [tuple(each) for each in colours[:7]] == wanted
    assert colours[15] == [192, 128, 128]


def test_a_model_gives_the_same_answers_once_it_is_saved(lived: dict[str, Path], tmp_path: Path) -> None:
    tiny_pictures.answers_the_same_once_saved(lived["pretrain"], tmp_path / "again", drawn(3)[0])


@pytest.mark.parametrize("side", [16, 200])
def test_places_of_a_large_picture_stand_for_two_pixels(lived: dict[str, Path], side: int) -> None:
    """From 192 pixels on; the loss is that of logits repeated, and answers still have the size of the picture."""
    from danlu import models, tasks
    from danlu.modalities.image import Image
    from danlu.models.architecture import build

    task = tasks.load("segmentation")(Image(side, [0.5] * 3, [0.25] * 3), ("0", "1"), 1, {"dice": 1.0})
    net = build(task.shaped(models.preset("unet", 0, 1, 1, image=side, width=4)), torch.Generator().manual_seed(1))
    random = torch.Generator().manual_seed(2)
    batch = {"pixel_values": torch.randint(256, (2, 3, side, side), generator=random, dtype=torch.uint8)}
    batch["pixel_labels"] = torch.randint(2, (2, side, side), generator=random, dtype=torch.uint8)
    places = side // (2 if side == 200 else 1)
    logits = net(task.processor.scaled(batch)).transpose(1, 2).reshape(2, 2, places, places)
    times = side // places
    repeated = logits.repeat_interleave(times, 2).repeat_interleave(times, 3)
    wanted = torch.nn.functional.cross_entropy(repeated, batch["pixel_labels"].long(), reduction="sum")
    torch.testing.assert_close(task.loss(net, batch)["loss"], wanted)
    assert pixels.classes(pixels.read(task.predict(net, batch)[0]["mask"])).shape == (side, side)


def test_a_balanced_picture_weighs_its_classes_alike() -> None:
    """By hand: 2 pixels of one class, 8 of another, 2 of none; all are 10 in sum."""
    from danlu.tasks.segmentation import VOID, _weights

    labels = torch.tensor([[[0, 0, 1, 1], [1, 1, 1, 1], [1, 1, VOID, VOID]], [[1] * 4, [VOID] * 4, [VOID] * 4]])
    whole, half = (_weights(labels, 3, balance) for balance in (1.0, 0.5))
    assert whole[0].flatten()[[0, 2, 10]].tolist() == pytest.approx([2.5, 0.625, 0.0])
    assert (half[0, 0, 0] / half[0, 0, 2]).item() == pytest.approx(2.0)
    for each in (whole, half):
        assert each.sum((1, 2)).tolist() == pytest.approx([10.0, 4.0])


def test_dice_is_one_less_overlap() -> None:
    """Of hard shares: 1 - F1 of each class that a picture has, as scikit-learn counts it."""
    from sklearn.metrics import f1_score

    from danlu.tasks.segmentation import _apart

    random = np.random.Generator(np.random.PCG64(4))
    truth, said = (random.integers(0, 3, (3, 8, 8)) for _ in range(2))
    truth[0][truth[0] == 2] = 0
    truth[:, 0] = 255
    shares = torch.nn.functional.one_hot(torch.from_numpy(said), 3).movedim(-1, 1).double()
    wanted = 0.0
    for true, found in zip(truth, said, strict=True):
        there = sorted(set(true[true != 255].tolist()))
        wanted += float(np.mean(1 - f1_score(true[1:].ravel(), found[1:].ravel(), average=None, labels=there)))
    assert float(_apart(shares, torch.from_numpy(truth))) == pytest.approx(wanted, abs=1e-9)


def test_a_model_is_measured_on_other_masks(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read as `danlu init` would read them: 11 is of no class there, too."""
    files_of(tmp_path / "more" / "train", tmp_path / "more" / "trainannot", 6, 700)
    tiny_pictures.is_measured(lived["pretrain"], tmp_path / "more", "mean_iou", capsys)


SEEN_ANEW = [("crop=2",), ("flip=true",), ("zoom=0.5",), ("colour=0.3",), ("dice=1.0",), ("balance=0.5",)]


def test_every_way_to_see_them_anew_changes_the_weights_alone(tmp_path: Path, lived: dict[str, Path]) -> None:
    life = project(tmp_path)
    tiny_pictures.only_weights_change(life, lived["encode"], SEEN_ANEW, steps=3)
    other = tiny_pictures.changed(life, "options.size=8").run(Silent(), "encode").folders["encode"]
    assert Columns(other / "columns" / "train").shape("pixel_labels") == (8, 8)


ANEW = "[options]\ncrop = 2\nflip = true\nzoom = 0.3\ncolour = 0.2\ndice = 1.0\nbalance = 0.5\n"


def test_micro_batches_see_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = project(tmp_path, ANEW)
    tiny_pictures.learns_the_same_in_parts(life, monkeypatch, "train.steps=5", "train.lr=0.001")


def test_its_training_is_exact(tmp_path: Path) -> None:
    tiny_pictures.is_exact(project(tmp_path, ANEW))


def test_plan_forecasts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pictures.is_forecast(project(tmp_path), capsys)


# --- raw files ---------------------------------------------------------------------------------------------


def of_splits(folder: Path) -> None:
    for split, count in (("train", 20), ("val", 4), ("test", 4)):
        files_of(folder / split, folder / f"{split}annot", count, count * 50)


def of_two(folder: Path) -> None:
    files_of(folder / "images", folder / "masks", 28)


def of_nested(folder: Path) -> None:
    files_of(folder / "train" / "images", folder / "train" / "labels", 20)
    files_of(folder / "test" / "images", folder / "test" / "labels", 8, 60)


@pytest.mark.parametrize(("make", "rows"), [(of_splits, 20), (of_two, 28), (of_nested, 20)])
def test_raw_files_are_recognised_and_read(tmp_path: Path, make: Callable[[Path], None], rows: int) -> None:
    (tmp_path / "raw").mkdir()
    make(tmp_path / "raw")
    (tmp_path / "raw" / "README.md").write_text("# Things\n", "utf-8")
    written, seen, encoded = tiny_pictures.begun(tmp_path)
    assert 'task = "segmentation"' in written
    assert seen == rows
    assert ("void = 11" in written) == (make is of_splits)
    table = files.read_json(encoded / "tokens.json")
    assert sum(each["rows"] for each in table["splits"].values()) == 28
    assert table["labels"] == ["0", "4", "7", *([] if make is of_splits else ["11"])]


def test_a_changed_mask_is_noticed(tmp_path: Path) -> None:
    life = project(tmp_path)
    life.run(Silent(), "encode")
    Pillow.fromarray(drawn(77)[1]).save(tmp_path / "set" / "trainannot" / "003.png")
    assert next(Life(load_recipe(life.loaded.path, ())).states()).status == "run"


@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        ("a/images/x.jpg", "a/masks/x.png"), ("a/JPEGImages/x.jpg", "a/SegmentationClass/x.png"),
        ("images/train/x.jpg", "annotations/train/x.png"), ("train/x.jpg", "train_masks/x_mask.gif"),
        ("a/img/x.jpg", "a/labels/x_L.png"),
    ],
)  # fmt: skip
def test_names_tell_which_mask_is_of_which_picture(picture: str, mask: str) -> None:
    others = [Path("/r/other/x.png"), Path("/r/a/masks/y.png")]
    assert masks.pairs([*others, Path("/r", mask), Path("/r", picture)]) == {Path("/r", picture): Path("/r", mask)}


BAD = {
    "size": (lambda: saved(np.zeros((9, 20), np.uint8)), "20 x 9"),
    "colours": (lambda: saved(np.zeros((16, 20, 3), np.uint8)), "RGB"),
    "blurred": (lambda: saved(np.zeros((16, 20), np.uint8), "JPEG"), "JPEG"),
    "range": (lambda: saved(np.full((16, 20), 300, np.uint16)), "300"),
    "void": (lambda: saved(np.full((16, 20), VOID, np.uint8)), "without a class"),
    "cut": (lambda: saved(np.zeros((16, 20), np.uint8))[:40], "no picture that can be read"),
    "missing": (None, "no mask"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_mask_is_named_with_its_reason(tmp_path: Path, kind: str) -> None:
    make, reason = BAD[kind]
    project(tmp_path)
    path = tmp_path / "set" / "trainannot" / "007.png"
    if make:
        path.write_bytes(make())
    else:
        path.unlink()
    tiny_pictures.names_a_bad_file(lambda more: recipe(tmp_path, DATA + more), "007.png", reason, 39)


def test_void_is_for_masks(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("some text\n" * 50, "utf-8")
    (tmp_path / "recipe.toml").write_text('task = "language_modeling"\n[data]\npath = "rows.txt"\nvoid = 3\n', "utf-8")
    with pytest.raises(UserError, match="E280"):
        Life(load_recipe(tmp_path / "recipe.toml", ())).run(Silent(), "prepare")


def test_palettes_hold_numbers_and_white_is_a_class_of_black_and_white(tmp_path: Path) -> None:
    image = Pillow.fromarray(drawn(1)[1])
    image.putpalette([5 * each % 256 for each in range(768)])
    file = io.BytesIO()
    image.save(file, "PNG")
    np.testing.assert_array_equal(pixels.classes(file.getvalue()), drawn(1)[1])
    files_of(tmp_path / "raw" / "images", tmp_path / "raw" / "masks", 20)
    for path in (tmp_path / "raw" / "masks").glob("*.png"):
        Pillow.fromarray(((np.asarray(Pillow.open(path)) % 11 > 0) * 255).astype(np.uint8)).save(path)
    written, _ = starter.recipe(tmp_path / "raw", Path("raw"))
    assert "void = 254" in written


def test_columns_of_pictures_without_a_table_are_refused(tmp_path: Path) -> None:
    life = project(tmp_path, '\n[data.columns]\nmask = "nosuch"\n')
    assert tiny_task.refused(life, "prepare").code == "E220"
