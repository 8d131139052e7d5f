"""The life of pictures: raw files in, a class over HTTP out; bad files are named, held-out ones teach nothing."""

import base64
import gzip
import json
import struct
import tarfile
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from transformers import IJepaForImageClassification, ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

import danlu
from danlu import Model, cli, files
from danlu.artifact import Lineage
from danlu.config import Serve
from danlu.data.columns import Columns
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from danlu.serve.run import background
from tests import tiny_task
from tests.models.stock import randomised
from tests.tiny_pictures import (
    KINDS,
    answers_the_same_once_saved,
    begun,
    changed,
    folders,
    goes_on_once_stopped,
    is_exact,
    is_forecast,
    is_measured,
    learns_the_same_in_parts,
    names_a_bad_file,
    only_weights_change,
    pixels,
    project,
    recipe,
    row,
    saved,
)  # fmt: skip


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("pictures")).run(Silent()).folders)


def test_it_learns_a_class(lived: dict[str, Path]) -> None:
    told = files.read_json(lived["evaluate"] / "metrics.json")
    assert told["split"] == "test"
    assert told["models"]["base"]["accuracy"] > 0.9
    low, high = told["intervals"]["models"]["base"]["accuracy"]
    assert low <= told["models"]["base"]["accuracy"] <= high
    assert sum(map(sum, told["confusion"]["matrix"])) == 24
    assert Lineage.read(lived["pretrain"]).facts["counted"] == "pictures", "which is what its speed is told in"


STOCK = {"vit": ViTForImageClassification, "ijepa": IJepaForImageClassification}


@pytest.mark.parametrize("arch", ["mlp", "resnet", "vit", "ijepa"])
def test_other_networks_learn_them_too(tmp_path: Path, arch: str) -> None:
    more = ["model.patch=4"] if arch in STOCK else []
    keys = [f"model.arch={arch}", "model.width=64", "train.lr=0.003", "train.optimizer=adamw", *more]
    folders_of = Life(load_recipe(project(tmp_path).loaded.path, keys)).run(Silent()).folders
    told = files.read_json(folders_of["evaluate"] / "metrics.json")
    assert told["models"]["base"]["accuracy"] > 0.8
    if arch not in STOCK:
        return
    theirs = STOCK[arch].from_pretrained(folders_of["pretrain"]).double().eval()
    assert list(theirs.config.id2label.values()) == list(KINDS)
    ours = Model.from_pretrained(folders_of["pretrain"])
    seen = torch.from_numpy(pixels("down", 1).transpose(2, 0, 1)[None].copy())
    batch = ours.processor.scaled({"pixel_values": seen})
    with torch.no_grad():
        found, wanted = ours.net.double()(batch), theirs(batch["pixel_values"].double()).logits
    assert float((found - wanted).abs().max()) <= 1e-8


def test_a_vit_of_transformers_answers_here(tmp_path: Path) -> None:
    """Its weights, labels and processor: what its own pipeline says of a file."""
    names = {0: "cat", 1: "dog", 2: "hen"}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    shape = ViTConfig(**sizes, image_size=16, patch_size=4, id2label=names, label2id={v: k for k, v in names.items()})
    theirs = randomised(ViTForImageClassification(shape)).double().eval()
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    theirs.float().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    theirs.double()
    ours = Model.from_pretrained(tmp_path)
    assert (ours.task_name, ours.task.labels) == ("image_classification", ("cat", "dog", "hen"))
    image = Pillow.fromarray(pixels("across", 5, 40))
    asked = row(pixels("across", 5, 40))
    with torch.no_grad():
        wanted = theirs(processor(image, return_tensors="pt")["pixel_values"].double()).logits.softmax(-1)[0]
        seen = ours.processor.scaled({"pixel_values": torch.from_numpy(ours.processor.encode(asked["image"]))[None]})
        found = ours.net.double()(seen).softmax(-1)[0]
    assert float((found - wanted).abs().max()) <= 1e-6
    said = ours.judge([asked])[0]
    assert said["label"] == ("cat", "dog", "hen")[int(wanted.argmax())]


def test_pixels_are_kept_as_they_were(lived: dict[str, Path]) -> None:
    """Training reads bytes that are decoded already: those of the files."""
    columns = Columns(lived["encode"] / "columns" / "test")
    assert columns.shape("pixel_values") == (3, 12, 12)
    seen = {columns.row(index)["pixel_values"].tobytes() for index in range(len(columns))}
    wanted = {pixels(kind, index).transpose(2, 0, 1).tobytes() for kind in KINDS for index in range(100, 112)}
    assert seen == wanted


def test_the_processor_is_transformers(lived: dict[str, Path]) -> None:
    """What ViTImageProcessor makes of a file by our preprocessor_config.json is what our network reads."""
    model = Model.from_pretrained(lived["pretrain"])
    theirs = ViTImageProcessor.from_pretrained(lived["pretrain"])
    random = np.random.Generator(np.random.PCG64(1))
    image = random.integers(0, 256, (20, 31, 3), np.uint8)
    ours = model.processor.encode(row(image)["image"])
    scaled = model.processor.scaled({"pixel_values": torch.from_numpy(ours)[None]})["pixel_values"]
    torch.testing.assert_close(
        scaled, theirs(Pillow.fromarray(image), return_tensors="pt")["pixel_values"], rtol=0, atol=2e-6
    )


def test_pictures_are_answered_alike_by_command_and_server(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "asked.png"
    Pillow.fromarray(pixels("down", 500)).save(path)
    assert cli.main(["predict", str(lived["pretrain"]), str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["label"] == "down"
    written = base64.b64encode(path.read_bytes()).decode()
    with background(Model.from_pretrained(lived["pretrain"]), "tiny", Serve(port=0)) as url:
        served = tiny_task.asked(url, {"image": [written, f"data:image/png;base64,{written}"]})["predictions"]
        for each in served:
            assert each["score"] == pytest.approx(said["score"], abs=1e-6)
        noise = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (900, 900, 3), np.uint8)
        assert len(row(noise)["image"]) > 3 * 2**20
        assert tiny_task.asked(url, row(noise))["predictions"][0]["label"] in KINDS
        for wrong in ("http://127.0.0.1:1/x.png", "file:///etc/passwd", base64.b64encode(b"GIF89a").decode()):
            with pytest.raises(urllib.error.HTTPError) as refused:
                tiny_task.asked(url, {"image": wrong})
            assert refused.value.code == 400
            assert "picture" in json.load(refused.value)["error"]["message"]
    with pytest.raises(UserError, match="E278"):
        Model.from_pretrained(lived["pretrain"]).predict("no such file.png")


def posted(url: str, body: bytes, kind: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(f"{url}/predict", body, {"content-type": kind})) as reply:
        return json.load(reply)["predictions"]


def form(*fields: tuple[str, str, bytes]) -> bytes:
    """A form as browsers and curl send it: fields of a name, the name of a file or "", and bytes."""
    made = b""
    for name, file, value in fields:
        named = f'; filename="{file}"\r\nContent-Type: image/png' if file else ""
        made += f'--XyZ\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + value + b"\r\n"
    return made + b"--XyZ--\r\n"


def test_pictures_are_taken_as_files_too(lived: dict[str, Path]) -> None:
    """Of a form, several of one name, and one as the whole body: the same answer as for its bytes in base64."""
    shown = [saved(Pillow.fromarray(pixels(kind, 500 + at)), "PNG") for at, kind in enumerate(KINDS)]
    model, sent = Model.from_pretrained(lived["pretrain"]), "multipart/form-data; boundary=XyZ"
    said = model.judge([row(each) for each in shown])
    with background(model, "tiny", Serve(port=0)) as url:
        for body, kind, wanted in [
            (form(*(("image", "a.png", each) for each in shown)), sent, said),
            (form(("model", "", b"tiny"), ("image", "a.png", shown[0])), sent, said[:1]),
            (shown[1], "image/png", said[1:]),
        ]:
            found = posted(url, body, kind)
            assert [each["label"] for each in found] == [each["label"] for each in wanted]
            assert [each["score"] for each in found] == pytest.approx([each["score"] for each in wanted], abs=1e-6)
        for body, kind, code in [
            (form(("image", "a.png", shown[0]))[:-10], sent, "invalid_form"),
            (shown[0], "multipart/form-data", "invalid_form"),
            (form(("picture", "a.png", shown[0])), sent, "missing_field"),
            (form(("image", "a.png", b"no picture")), sent, "invalid_value"),
            (form(("image", "", b"\xff\xfe")), sent, "not_text"),
            (b"{}", "text/plain", "not_json"),
        ]:
            with pytest.raises(urllib.error.HTTPError) as refused:
                posted(url, body, kind)
            assert json.load(refused.value)["error"]["code"] == code


def test_a_model_gives_the_same_answers_once_it_is_saved(lived: dict[str, Path], tmp_path: Path) -> None:
    answers_the_same_once_saved(lived["pretrain"], tmp_path / "again", pixels("down", 0))


def test_another_size_is_another_encoding(tmp_path: Path, lived: dict[str, Path]) -> None:
    told = {}
    for size in (0, 8):
        life = Life(load_recipe(project(tmp_path).loaded.path, [f"options.size={size}"]))
        told[size] = Columns(life.run(Silent(), "encode").folders["encode"] / "columns" / "train").shape("pixel_values")
    assert told == {0: (3, 12, 12), 8: (3, 8, 8)}


SEEN_ANEW = [
    ("crop=2",), ("flip=true",), ("colour=0.3",), ("randaugment=2",), ("randaugment=2", "magnitude=20"),
    ("erase=0.5",), ("mixup=0.5",), ("cutmix=0.5",), ("grow=0.5",),
]  # fmt: skip


def test_every_way_to_see_them_anew_changes_the_weights_alone(tmp_path: Path, lived: dict[str, Path]) -> None:
    only_weights_change(project(tmp_path), lived["encode"], SEEN_ANEW, steps=4)


ANEW = """
[options]
crop = 2
flip = true
colour = 0.2
randaugment = 1
erase = 0.3
grow = 0.5
"""


def test_micro_batches_see_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learns_the_same_in_parts(project(tmp_path, ANEW), monkeypatch, "train.steps=6", "train.lr=0.001")


def test_killed_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ANEW + "mixup = 0.3\ncutmix = 0.3\n"
    goes_on_once_stopped(lambda folder, *keys: changed(project(folder, more), *keys), tmp_path, monkeypatch)


@pytest.mark.parametrize("arch", ["cnn", "vit"])
def test_its_training_is_exact(tmp_path: Path, arch: str) -> None:
    is_exact(project(tmp_path, ANEW), f"model.arch={arch}", "model.width=64")


def test_a_model_is_measured_on_other_pictures(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    is_measured(lived["pretrain"], folders(tmp_path / "more", 9, 300), "accuracy", capsys)


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of transformers without labels, though its config.json names some."""
    folder = tmp_path_factory.mktemp("body")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=4, id2label={0: "x", 1: "y", 2: "z"})).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_base_is_tuned_to_other_labels(tmp_path: Path, body: Path, tune: str) -> None:
    folders(tmp_path / "set", 30)
    model = f'[model]\nbase = "{body}"\n[train]\nsteps = 40\nlr = 2e-3\nbatch_tokens = 16\nprecision = "fp32"\n'
    data, tuned = 'path = "set"\nsplit = { valid = 0.1, test = 0.2 }', f'[finetune]\ntune = "{tune}"\n'
    made = recipe(tmp_path, data, tuned, model).run(Silent()).folders
    assert files.read_json(made["evaluate"] / "metrics.json")["models"]["base"]["accuracy"] > 0.7
    assert ViTForImageClassification.from_pretrained(made["finetune"]).config.id2label == dict(enumerate(KINDS))


def test_it_is_fitted_in_python(tmp_path: Path, body: Path) -> None:
    rows = [row(pixels(KINDS[i % 2], i)) | {"label": KINDS[i % 2]} for i in range(60)]
    model = danlu.ViTForImageClassification.from_pretrained(body)
    model.fit(rows, steps=40, lr=2e-3, batch_tokens=16, quiet=True)
    assert model.evaluate(rows, quiet=True)["accuracy"] > 0.8
    model.save_pretrained(tmp_path / "out")
    again = danlu.AutoModel.from_pretrained(tmp_path / "out")
    (said,), (before,) = (each.predict([{"image": rows[0]["image"]}]) for each in (again, model))
    assert said["scores"] == pytest.approx(before["scores"], abs=1e-6)


# --- raw files ---------------------------------------------------------------------------------------------


def idx(folder: Path, name: str, count: int, start: int) -> None:
    images = np.stack([pixels(KINDS[i % 2], start + i)[..., 0] for i in range(count)])
    labels = np.array([i % 2 for i in range(count)], np.uint8)
    with gzip.open(folder / f"{name}-images-idx3-ubyte.gz", "wb") as file:
        file.write(struct.pack(">4I", 0x803, *images.shape) + images.tobytes())
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())


def archive(folder: Path, name: str, count: int, start: int) -> None:
    folders(folder / name, count, start)
    with tarfile.open(folder / f"{name}.tar.xz", "w:xz") as tar:
        tar.add(folder / name, name)
    files.remove(folder / name)


def of_folders(folder: Path) -> None:
    folders(folder / "train", 20)
    folders(folder / "test", 5, 50)


def of_archives(folder: Path) -> None:
    archive(folder, "train", 20, 0)
    archive(folder, "test", 5, 50)


def of_idx(folder: Path) -> None:
    idx(folder, "train", 40, 0)
    idx(folder, "t10k", 10, 50)


def of_table(folder: Path) -> None:
    folders(folder / "files", 25)
    rows = [f"files/{kind}/{index:03d}.png,{index},{kind}" for kind in KINDS for index in range(25)]
    (folder / "rows.csv").write_text("\n".join(["path,number,class", *rows]) + "\n", "utf-8")


def test_a_table_may_name_pictures(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    of_table(tmp_path / "raw")
    _, rows, encoded = begun(tmp_path)
    assert rows == 50
    counts = files.read_json(encoded / "tokens.json")["splits"]
    assert sum(each["rows"] for each in counts.values()) == 50
    Pillow.fromarray(pixels("down", 77)).save(tmp_path / "raw" / "files" / "down" / "003.png")
    assert next(Life(load_recipe(tmp_path / "recipe.toml", ())).states()).status == "run", "a picture has changed"
    for wrong in ("files/none.png", "../../etc/passwd"):
        (tmp_path / "raw" / "rows.csv").write_text(f"path,class\nfiles/down/001.png,a\n{wrong},b\n", "utf-8")
        with pytest.raises(UserError, match=r"E208|E209") as refused:
            Life(load_recipe(tmp_path / "recipe.toml", ())).run(Silent(), "encode")
        assert wrong in refused.value.render()


@pytest.mark.parametrize("make", [of_folders, of_archives, of_idx])
def test_raw_files_are_recognised_and_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "raw").mkdir()
    make(tmp_path / "raw")
    (tmp_path / "raw" / "README.md").write_text("# Pictures\n\nTwo kinds of stripes.\n", "utf-8")
    _, rows, encoded = begun(tmp_path)
    assert rows == 40
    counts = files.read_json(encoded / "tokens.json")["splits"]
    assert counts["train"]["rows"] + counts["valid"]["rows"] == 40
    assert counts["test"]["rows"] == 10
    said = files.read_json(encoded / "preprocessor_config.json")
    assert said["size"] == {"height": 12, "width": 12}
    assert len(said["image_mean"]) == (1 if make is of_idx else 3)


def test_copies_of_a_file_stay_in_one_split(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", 30)
    for path in sorted(root.rglob("*.png")):
        path.with_name(f"again-{path.name}").write_bytes(path.read_bytes())
    life = recipe(tmp_path, 'path = "set"\nsplit = { valid = 0.3, test = 0.3 }\nclean = []')
    encoded = life.run(Silent(), "encode").folders["encode"]
    seen = []
    for split in ("train", "valid", "test"):
        columns = Columns(encoded / "columns" / split)
        seen.append({columns.row(index)["pixel_values"].tobytes() for index in range(len(columns))})
    assert not seen[0] & seen[1]
    assert not (seen[0] | seen[1]) & seen[2]


# --- bad files ---------------------------------------------------------------------------------------------


def _colour() -> Pillow.Image:
    return Pillow.fromarray(pixels("down", 1))


def _moving() -> bytes:
    return saved(_colour(), "GIF", save_all=True, append_images=[Pillow.fromarray(pixels("across", 2))])


def _huge() -> bytes:
    """A PNG that says it has 64 million pixels, in a few bytes."""
    return saved(Pillow.new("1", (8000, 8000)), "PNG")


BAD = {
    "cut": (lambda: saved(_colour(), "PNG")[:200], "no picture that can be read"),
    "jpeg": (lambda: saved(_colour(), "JPEG")[:-300], "no picture that can be read"),
    "text": (lambda: b"this is no picture", "no picture that can be read"),
    "empty": (lambda: b"", "no picture that can be read"),
    "dot": (lambda: saved(Pillow.new("RGB", (1, 1)), "PNG"), "1 x 1"),
    "huge": (_huge, "8000 x 8000"),
    "moving": (_moving, "2 frames"),
    "float": (lambda: saved(Pillow.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "32-bit float"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_picture_is_named_with_its_reason(tmp_path: Path, kind: str) -> None:
    make, reason = BAD[kind]
    (folders(tmp_path / "set", 20) / "down" / "bad.png").write_bytes(make())
    data = 'path = "set"\nsplit = { valid = 0.0, test = 0.0 }'
    made = names_a_bad_file(lambda more: recipe(tmp_path, data + more), "down/bad.png", reason, 40)
    steps = files.read_json(made["prepare"] / "funnel.json")["steps"]
    assert next(each["dropped"] for each in steps if each["name"] == "bad_records") == 1


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    folders(tmp_path / "set", 20)
    (tmp_path / "set" / "neither").mkdir()
    data = 'path = "set"\nsplit = { valid = 0.0, test = 0.0 }'
    with pytest.raises(UserError, match="neither") as refused:
        recipe(tmp_path, data).run(Silent(), "prepare")
    assert refused.value.code == "E279"
    recipe(tmp_path, data + '\nbad_records = "skip"').run(Silent(), "prepare")


def _turned() -> tuple[bytes, np.ndarray]:
    """A picture that lies on its side, and says so; what people see of it."""
    array = pixels("down", 3)
    array[:4] = (250, 20, 20)
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return saved(Pillow.fromarray(array).rotate(90, expand=True), "PNG", exif=exif), array


def _sixteen() -> tuple[bytes, np.ndarray]:
    grey = np.arange(144, dtype=np.uint16).reshape(12, 12) * 455
    return saved(Pillow.fromarray(grey), "PNG"), np.repeat((grey / 257).astype(np.uint8)[..., None], 3, 2)


def _cmyk() -> tuple[bytes, np.ndarray]:
    image = _colour().convert("CMYK")
    return saved(image, "TIFF"), np.asarray(image.convert("RGB"))


def _clear() -> tuple[bytes, np.ndarray]:
    """Half of it is transparent over black: it is white to be seen."""
    array = np.concatenate([pixels("down", 4), np.full((12, 12, 1), 255, np.uint8)], 2)
    array[:6] = 0
    return saved(Pillow.fromarray(array), "PNG"), np.where(array[..., 3:] > 0, array[..., :3], 255).astype(np.uint8)


@pytest.mark.parametrize("make", [_turned, _sixteen, _cmyk, _clear])
def test_unusual_pictures_are_read_as_people_see_them(
    lived: dict[str, Path], make: Callable[[], tuple[bytes, np.ndarray]]
) -> None:
    data, wanted = make()
    found = Model.from_pretrained(lived["pretrain"]).processor.encode(row(data)["image"])
    assert np.abs(found.transpose(1, 2, 0).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("model.context", "64"), ("model.arch", "gpt"), ("model.heads", "2"), ("tokenizer.vocab_size", "500")],
)
def test_keys_of_text_are_refused(tmp_path: Path, key: str, value: str) -> None:
    life = project(tmp_path)
    with pytest.raises(UserError):
        load_recipe(life.loaded.path, [f"{key}={value}"])


def test_plan_forecasts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    is_forecast(project(tmp_path), capsys)


def test_a_folder_of_empty_files_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "shots" / name).parent.mkdir(parents=True)
        (tmp_path / "shots" / name).touch()
    assert cli.main(["init", str(tmp_path / "shots"), "--recipe", str(tmp_path / "recipe.toml")]) == 3
    assert "E203" in capsys.readouterr().err
