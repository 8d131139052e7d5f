"""The life of boxes: pictures and what files say of them in, boxes of each class out; what does not fit is named."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageFont

from danlu import Model, cli, files, pixels
from danlu.data import boxes
from danlu.data.augment import Augmentation, Lots
from danlu.data.columns import Columns
from danlu.graph import Life, Silent
from danlu.nn.boxes import apart, assigned, boxes_of, kept, places_of
from danlu.recipe import load_recipe
from tests import tiny_pictures
from tests.tiny_pictures import coloured

KINDS = {"bright": 235, "dark": 15}
WIDE, HIGH = 64, 48
Things = list[tuple[list[int], str]]


def drawn(seed: int) -> tuple[np.ndarray, Things]:
    """Bright and dark things on grey, and where they are."""
    random = np.random.Generator(np.random.PCG64(seed))
    picture, things = np.full((HIGH, WIDE), 120.0), []
    for column, kind in enumerate(KINDS):
        width, height = (int(random.integers(12, 20)) for _ in range(2))
        left, top = int(random.integers(0, 32 - width)) + 32 * column, int(random.integers(0, HIGH - height))
        picture[top : top + height, left : left + width] = KINDS[kind]
        things.append(([left, top, left + width, top + height], kind))
    picture += random.normal(0, 6, picture.shape)
    return coloured(picture), things


def farthest(said: dict[str, Any], things: Things) -> float:
    """How far from the things, at most, the surest box of each kind is, in pixels."""
    best = {each["label"]: each["box"] for each in reversed(said["boxes"])}
    return float(max(np.abs(np.array(best[kind]) - corners).max() for corners, kind in things))


def voc(things: Things) -> str:
    """VOC counts pixels from 1, and the last one is of the box."""
    told = (
        f"<object><name>{kind}</name><bndbox><xmin>{a + 1}</xmin><ymin>{b + 1}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
        "</bndbox></object>" for (a, b, c, d), kind in things
    )  # fmt: skip
    return f"<annotation>{''.join(told)}</annotation>"


def of_voc(root: Path, count: int = 44, test: int = 8) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        picture, things = drawn(index)
        Pillow.fromarray(picture).save(root / "JPEGImages" / f"{index:03d}.png")
        (root / "Annotations" / f"{index:03d}.xml").write_text(voc(things), "utf-8")
    names = [f"{index:03d}" for index in range(count)]
    (root / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names[-test:]) + "\n", "utf-8")


def of_coco(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    table: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    table["categories"] = [{"id": 7 + place, "name": kind} for place, kind in enumerate(KINDS)]
    for index in range(24):
        picture, things = drawn(index)
        Pillow.fromarray(picture).save(root / "images" / f"{index}.png")
        table["images"].append({"id": index, "file_name": f"{index}.png"})
        for (a, b, c, d), kind in things:
            kind_id = 7 + list(KINDS).index(kind)
            table["annotations"].append({"image_id": index, "category_id": kind_id, "bbox": [a, b, c - a, d - b]})
    table["annotations"].append({"image_id": 0, "category_id": 7, "bbox": [0, 0, 60, 40], "iscrowd": 1})
    (root / "instances.json").write_text(json.dumps(table), "utf-8")


DATA = 'path = "set"\ntest = "set/ImageSets/Main/test.txt"\nsplit = { valid = 0.1, test = 0.0 }'


def recipe(folder: Path, more: str = "", data: str = DATA) -> Life:
    return tiny_pictures.recipe(folder, data, more, tiny_pictures.train(steps=150), "object_detection")


def project(folder: Path, more: str = "[options]\nsize = 64\n") -> Life:
    of_voc(folder / "set")
    return recipe(folder, more)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("boxes")).run(Silent()).folders)


def test_it_finds_things_and_tells_them_apart(lived: dict[str, Path]) -> None:
    told = files.read_json(lived["evaluate"] / "metrics.json")
    assert told["split"] == "test"
    assert told["models"]["base"]["map_50"] > 0.7
    assert told["models"]["base"]["map"] < told["models"]["base"]["map_50"]
    assert [(each["label"], each["rows"]) for each in told["each"]] == [("bright", 8), ("dark", 8)]
    assert min(each["f1"] for each in told["each"]) > 0.5


def test_boxes_are_kept_at_the_size_of_the_pixels(lived: dict[str, Path]) -> None:
    columns = Columns(lived["encode"] / "columns" / "test")
    assert columns.shape("boxes") == (64, 5)
    found = {tuple(each[each[:, 4] >= 0].round(3).ravel().tolist())
             for each in (columns.row(index)["boxes"] for index in range(8))}  # fmt: skip
    wanted = set()
    for index in range(36, 44):
        boxed = [
            [a, b * 64 / HIGH, c, d * 64 / HIGH, list(KINDS).index(kind)] for (a, b, c, d), kind in drawn(index)[1]
        ]
        boxed.sort(key=lambda box: -(box[2] - box[0]) * (box[3] - box[1]))
        wanted.add(tuple(np.array(boxed, np.float32).round(3).ravel().tolist()))
    assert found == wanted


def test_boxes_are_drawn_where_one_works_and_served(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, things = drawn(500)
    said = tiny_pictures.predicted(lived["pretrain"], picture, tmp_path, capsys, monkeypatch)
    assert said["drawn"] == "asked-drawn.png"
    seen = Pillow.open(said["drawn"])
    assert (seen.size, seen.mode) == ((WIDE, HIGH), "RGB")
    assert bool((np.asarray(seen) != picture).any())
    assert farthest(said, things) < 8
    assert tiny_pictures.served(lived["pretrain"], picture)["boxes"] == said["boxes"]


def test_a_model_gives_the_same_answers_once_it_is_saved(lived: dict[str, Path], tmp_path: Path) -> None:
    tiny_pictures.answers_the_same_once_saved(lived["pretrain"], tmp_path / "again", drawn(3)[0])


def test_thresholds_decide_what_is_said(lived: dict[str, Path]) -> None:
    said = {}
    for name, value in (("threshold", 0.05), ("threshold", 0.99), ("overlap", 1.0)):
        model = Model.from_pretrained(lived["pretrain"])
        model.task.chosen |= {"threshold": 0.05, name: value}
        said[name, value] = len(model.judge([tiny_pictures.row(drawn(3)[0])])[0]["boxes"])
    assert said["threshold", 0.99] < said["threshold", 0.05] < said["overlap", 1.0]


def test_a_model_is_measured_on_other_boxes(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_coco(tmp_path / "more")
    tiny_pictures.is_measured(lived["pretrain"], tmp_path / "more", "map_50", capsys)


SEEN_ANEW = [("crop=2",), ("flip=true",), ("zoom=0.5",), ("colour=0.3",)]


def test_every_way_to_see_them_anew_changes_the_weights_alone(tmp_path: Path, lived: dict[str, Path]) -> None:
    life = project(tmp_path)
    tiny_pictures.only_weights_change(life, lived["encode"], SEEN_ANEW, steps=2)
    few = Life(load_recipe(life.loaded.path, ["options.most=1"])).run(Silent(), "encode").folders["encode"]
    assert Columns(few / "columns" / "train").shape("boxes") == (1, 5)


@pytest.mark.parametrize("way", [Augmentation(crop=6), Augmentation(flip=True), Augmentation(zoom=0.5),
                                 Augmentation(crop=6, flip=True, zoom=0.3)])  # fmt: skip
def test_boxes_are_moved_as_their_pictures_are(way: Augmentation) -> None:
    """White things on black: where the picture is white afterwards, there the box is."""
    side, random = 48, np.random.Generator(np.random.PCG64(6))
    pictures, boxed = torch.zeros(16, 1, side, side, dtype=torch.uint8), torch.full((16, 2, 5), -1.0)
    for number in range(16):
        left, top = (int(each) for each in random.integers(14, 22, 2))
        pictures[number, 0, top : top + 12, left : left + 10] = 255
        boxed[number, 0] = torch.tensor([left, top, left + 10, top + 12, 1])
    moves = way.moves(Lots(torch.from_numpy(random.integers(0, 2**62, 16))))
    seen, found = moves(pictures).float(), moves.of_boxes(boxed, side)
    assert bool((found[:, 1, 4] == -1).all())
    for picture, (left, top, right, bottom, kind) in zip(seen[:, 0], found[:, 0].tolist(), strict=True):
        rows, columns = (torch.nonzero((picture > 127).any(axis)).flatten() for axis in (1, 0))
        assert kind == 1
        wanted = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        assert np.abs(np.array([left, top, right, bottom]) - wanted).max() <= (1.01 if way.zoom else 0)
    away = torch.tensor([[[0.0, 0, 10, 10, 0]]])
    gone = Augmentation(crop=1).moves(Lots(torch.tensor([1])))
    object.__setattr__(gone, "by", (torch.tensor([0]), torch.tensor([-9])))
    assert float(gone.of_boxes(away, side)[0, 0, 4]) == -1, "a tenth of it is left"


def test_places_answer_for_the_smallest_box_around_them() -> None:
    places = places_of(8, 64, torch.device("cpu"))
    boxed = torch.tensor([[[0.0, 0, 64, 64, 0], [24, 24, 40, 40, 1], [1, 57, 4, 60, 2], [-1, -1, -1, -1, -1]]])
    kinds, own = assigned(boxed, places)
    table = kinds[0].view(8, 8)
    assert table[7, 0] == 2, "the place under a small box"
    assert table[3:5, 3:5].eq(1).all(), "the smaller of two"
    assert table[2, 3] == 0
    assert table[0, 4] == -1, "inside the largest, but far from its middle"
    assert own[0, 3 * 8 + 3].tolist() == [24, 24, 40, 40]
    said = torch.zeros(1, 64, 4)
    assert boxes_of(said, places, 8.0)[0, 0].tolist() == [-4, -4, 12, 12]


def test_boxes_apart_are_as_the_paper_has_it() -> None:
    one, other = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
    assert float(apart(one, one)) == pytest.approx(0)
    assert float(apart(one, other)) == pytest.approx(1 - 1 / 7 + 2 / 9)
    assert float(apart(one, torch.tensor([[4.0, 0, 6, 2]]))) == pytest.approx(1 + 4 / 12)


def test_of_boxes_that_overlap_the_surest_stays() -> None:
    where = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]], float)
    scores = np.array([[0.8, 0.0], [0.9, 0.6], [0.3, 0.01]])
    found = kept(scores, where, 0.05, 0.5, 100)
    assert found[:, 4:].tolist() == [[0.9, 0], [0.6, 1], [0.3, 0]], "boxes of another class are not in the way"
    assert len(kept(scores, where, 0.05, 0.9, 100)) == 4
    assert len(kept(scores, where, 0.05, 0.9, 2)) == 2


def test_micro_batches_see_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = project(tmp_path, "[options]\nsize = 64\ncrop = 4\nflip = true\nzoom = 0.3\ncolour = 0.2\n")
    keys = ("train.steps=4", "train.lr=0.001")
    tiny_pictures.learns_the_same_in_parts(life, monkeypatch, *keys, parts=(1, 4), atol=5e-5)


def test_its_training_is_exact(tmp_path: Path) -> None:
    tiny_pictures.is_exact(project(tmp_path))


def test_plan_forecasts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pictures.is_forecast(project(tmp_path), capsys)


# --- raw files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "rows", "test"), [(of_voc, 44, 8), (of_coco, 24, None)])
def test_raw_files_are_recognised_and_read(tmp_path: Path, make: Any, rows: int, test: int | None) -> None:
    make(tmp_path / "raw")
    written, seen, encoded = tiny_pictures.begun(tmp_path)
    assert 'task = "object_detection"' in written
    assert seen == rows
    assert ('test = "raw/ImageSets/Main/test.txt"' in written) == bool(test)
    table = files.read_json(encoded / "tokens.json")
    assert sum(each["rows"] for each in table["splits"].values()) == rows
    assert test is None or table["splits"]["test"]["rows"] == test
    assert table["labels"] == ["bright", "dark"]


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    of_voc(tmp_path / "voc", 24)
    of_coco(tmp_path / "coco")
    one = boxes.read(sorted((tmp_path / "voc" / "Annotations").iterdir()))
    two = boxes.read([tmp_path / "coco" / "instances.json"])
    for index in range(24):
        wanted = [[*map(float, corners), kind] for corners, kind in drawn(index)[1]]
        assert one.of(Path(f"{index:03d}.png")) == two.of(Path(f"{index}.png")) == wanted


BAD = {
    "outside": (voc([([40, 10, 90, 20], "dark")]), "does not lie in its picture of 64 x 48"),
    "empty": (voc([([10, 10, 10, 20], "dark")]), "without an area"),
    "cut": ("<annotation><object>", "no boxes can be read"),
    "corners": ("<annotation><object><name>dark</name></object></annotation>", "no boxes can be read"),
    "missing": (None, "nothing is said of this picture"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_box_is_named_with_its_file_and_reason(tmp_path: Path, kind: str) -> None:
    said, reason = BAD[kind]
    project(tmp_path)
    path = tmp_path / "set" / "Annotations" / "007.xml"
    path.unlink() if said is None else path.write_text(said, "utf-8")
    tiny_pictures.names_a_bad_file(lambda more: recipe(tmp_path, data=DATA + more), "007.png", reason, 35)


def test_a_changed_annotation_or_list_is_noticed(tmp_path: Path) -> None:
    life = project(tmp_path)
    life.run(Silent(), "prepare")
    for path in ("Annotations/003.xml", "ImageSets/Main/test.txt"):
        before = (tmp_path / "set" / path).read_text("utf-8")
        (tmp_path / "set" / path).write_text(before.replace("dark", "bright").replace("043\n", ""), "utf-8")
        assert next(Life(load_recipe(life.loaded.path, ())).states()).status == "run", path
        (tmp_path / "set" / path).write_text(before, "utf-8")
        assert next(Life(load_recipe(life.loaded.path, ())).states()).status != "run"


def test_a_label_that_no_font_has_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    image, box = Pillow.new("RGB", (64, 64)), [((4, 4, 60, 60), "红细胞")]
    monkeypatch.setattr(pixels, "_FONTS", ("no such font",))
    seen = pixels.framed(image, box, ["红细胞"])
    assert seen == pixels.framed(image, [((4, 4, 60, 60), "1")], ["1"]), "no empty frames in the place of letters"
    monkeypatch.setattr(pixels, "_FONTS", ("no such font", "DejaVuSans.ttf"))
    with contextlib.suppress(OSError):
        ImageFont.truetype("DejaVuSans.ttf", 11)
        assert pixels.framed(image, box, ["红细胞"]) != seen


def test_boxes_of_a_picture_that_is_not_there_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    life = project(tmp_path)
    (tmp_path / "set" / "JPEGImages" / "007.png").unlink()
    assert cli.main(["run", str(life.loaded.path), "--to", "prepare"]) == 0
    assert "1 pictures of which boxes are told are not there: 007.xml" in capsys.readouterr().err


def test_pictures_without_any_box_are_refused_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    life = project(tmp_path)
    for path in (tmp_path / "set" / "Annotations").iterdir():
        path.write_text(voc([]), "utf-8")
    assert cli.main(["run", str(life.loaded.path)]) == 3
    assert "E268" in capsys.readouterr().err
