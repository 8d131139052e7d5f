"""What classes of masks are called: files that say so, and where their names are shown."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from danlu import Model, files, pixels
from danlu.data import masks, starter
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from tests.test_masks import drawn, project
from tests.tiny_pictures import predicted

NAMES = {"0": "ground", "4": "bright thing", "7": "dark thing"}
CODES = "0 ground\n4: bright thing\n7\tdark thing\n11,void\n"
DATA = 'data.path=["set/train", "set/trainannot", "set/codes.txt"]'


def named(folder: Path) -> Life:
    life = project(folder)
    (folder / "set" / "codes.txt").write_text(CODES, "utf-8")
    return Life(load_recipe(life.loaded.path, [DATA, "train.steps=60"]))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(named(tmp_path_factory.mktemp("names")).run(Silent()).folders)


@pytest.mark.parametrize(
    ("name", "said", "wanted"),
    [
        ("codes.txt", CODES, NAMES | {"11": "void"}),
        ("my_classes.txt", "sky\n\nroad\n", {"0": "sky", "1": "road"}),
        ("labels.txt", "\ufeffsky\n2nd road\n", {"0": "sky", "1": "2nd road"}),
        ("class_dict.csv", "name,r,g,b\nSky,1,2,3\nRoad,4,5,6\n", {"0": "Sky", "1": "Road"}),
        ("names.txt", "car\nroad\ncar\n", {"0": "car 0", "1": "road", "2": "car 2"}),
    ],
)
def test_files_say_what_numbers_are_called(tmp_path: Path, name: str, said: str, wanted: dict[str, str]) -> None:
    (tmp_path / name).write_text(said, "utf-8")
    assert masks.names([tmp_path / "a.png", tmp_path / name]) == wanted
    assert masks.without([tmp_path / "a.png", tmp_path / name]) == [tmp_path / "a.png"]


def test_a_file_of_names_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "codes.txt").write_bytes(b"\xff\xfe\x00sky")
    with pytest.raises(UserError) as refused:
        masks.names([tmp_path / "codes.txt"])
    assert refused.value.code == "E210"
    assert masks.names([tmp_path / "notes.txt"]) == {}


def test_figures_and_answers_have_names(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = files.read_json(lived["evaluate"] / "metrics.json")
    assert [each["label"] for each in told["each"]] == list(NAMES.values())
    picture, _ = drawn(500, 24, 32)
    said = predicted(lived["pretrain"], picture, tmp_path, capsys, monkeypatch)
    assert list(said["classes"]) == list(NAMES.values())
    mask = Pillow.open(said["mask"])
    assert {str(each["number"]): each["name"] for each in said["legend"]} == NAMES
    for each in said["legend"]:
        (colour,) = {*map(tuple, np.asarray(mask.convert("RGB"))[np.asarray(mask) == each["number"]].tolist())}
        assert each["colour"] == "#" + bytes(colour).hex()
    seen = np.asarray(Pillow.open(said["drawn"]).convert("RGB"))
    under = (picture.astype(int) + np.asarray(mask.convert("RGB"))) / 2
    assert np.abs(seen[:24, :32] - under).max() <= 1, "the picture under its colours"
    below = {*map(tuple, seen[24:].reshape(-1, 3).tolist())}
    assert all(tuple(bytes.fromhex(each["colour"][1:])) in below for each in said["legend"])
    assert (0, 0, 0) in below, "names are written"
    assert "bright thing: " in Model.from_pretrained(lived["pretrain"]).task.told({**said, **_row(said, picture)})


def _row(said: dict[str, str], picture: np.ndarray) -> dict[str, str]:
    return {"mask": pixels.written(Path(said["mask"]).read_bytes()), "image": pixels.written(pixels.png(picture))}


def test_other_names_are_another_model(tmp_path: Path, lived: dict[str, Path]) -> None:
    life = named(tmp_path)
    (tmp_path / "set" / "codes.txt").write_text(CODES.replace("dark", "black"), "utf-8")
    folders = Life(load_recipe(life.loaded.path, [DATA, "train.steps=1"])).run(Silent(), "pretrain").folders
    assert Model.from_pretrained(folders["pretrain"]).task.chosen["names"]["7"] == "black thing"
    old = files.read_json(lived["encode"] / "tokens.json")["learned"]["names"]
    assert old["7"] == "dark thing"
    plain = project(tmp_path / "plain").run(Silent(), "encode").folders["encode"]
    assert files.read_json(plain / "tokens.json")["learned"] == {}


def test_init_names_the_file(tmp_path: Path) -> None:
    named(tmp_path)
    written, rows = starter.recipe(tmp_path / "set", Path("set"))
    assert 'path = ["set/train", "set/trainannot", "set/codes.txt"]' in written
    assert rows == 40
    (tmp_path / "new.toml").write_text(written, "utf-8")
    encoded = Life(load_recipe(tmp_path / "new.toml", ())).run(Silent(), "encode").folders["encode"]
    assert files.read_json(encoded / "tokens.json")["learned"]["names"] == NAMES | {"11": "void"}
