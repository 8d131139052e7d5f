"""Copies of pictures are found however they were saved, what is only alike is not, and none stands in two splits."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.fft import dctn

from danlu import files
from danlu.data import lookalikes
from danlu.data.lookalikes import Print, find, hashed
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from tests import test_boxes, test_masks

SIDE = 48


def scene(seed: int) -> Image.Image:
    """Coloured spots of all sizes, no two pictures alike."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    picture = np.full((SIDE, SIDE, 3), random.uniform(40, 200, 3))
    for _ in range(40):
        top, left, size = random.uniform(0, SIDE), random.uniform(0, SIDE), np.exp(random.uniform(0, 2.6))
        spot = np.exp(-((rows - top) ** 2 + (columns - left) ** 2) / (2 * size**2))
        picture += spot[..., None] * random.uniform(-90, 90, 3)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def stroke(seed: int) -> Image.Image:
    """One white stroke on black, as all of its kind."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows, columns = np.mgrid[:28, :28]
    middle = 14 + random.normal(0, 0.6) + (rows - 14) * random.normal(0.1, 0.08)
    width = random.uniform(1.2, 1.8)
    grey = 255 * np.exp(-((columns - middle) ** 2) / (2 * width**2)) * ((rows > 4) & (rows < 24))
    return Image.fromarray(grey.astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **how: object) -> str:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return base64.b64encode(file.getvalue()).decode()


def rows_of(pictures: dict[str, str]) -> tuple[list[Print], list[dict[str, str]]]:
    opened = {name: Image.open(io.BytesIO(base64.b64decode(value))) for name, value in pictures.items()}
    prints = [Print(name, str(hash(pictures[name])), hashed(image)) for name, image in opened.items()]
    return prints, [{"id": name, "image": value} for name, value in pictures.items()]


COPIES = {
    "compressed": lambda image: saved(image, "JPEG", quality=40),
    "halved": lambda image: saved(image.resize((SIDE // 2, SIDE // 2))),
    "doubled": lambda image: saved(image.resize((2 * SIDE, 2 * SIDE)), "WEBP"),
    "darker": lambda image: saved(ImageEnhance.Brightness(image).enhance(0.8)),
    "paler": lambda image: saved(ImageEnhance.Contrast(image).enhance(0.7)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_however_it_was_saved_and_nothing_else(kind: str) -> None:
    pictures = {f"{seed:03d}": saved(scene(seed)) for seed in range(150)}
    copies = {f"{seed:03d}-copy": COPIES[kind](scene(seed)) for seed in range(0, 150, 3)}
    found = find(*rows_of(pictures | copies), 0.95)
    assert found.drop.items() <= {f"{seed:03d}-copy": f"{seed:03d}" for seed in range(0, 150, 3)}.items()
    assert len(found.drop) >= 0.96 * len(copies)
    assert not found.exact


def test_equal_files_are_exact_copies_and_all_there_are_at_one() -> None:
    pictures = {f"{seed}": saved(scene(seed)) for seed in range(9)}
    pictures |= {"x": pictures["3"], "y": pictures["3"], "z": COPIES["compressed"](scene(5))}
    found = find(*rows_of(pictures), 1.0)
    assert (found.clusters, found.exact) == ([["3", "x", "y"]], {"x", "y"})
    assert find(*rows_of(pictures), 0.95).drop == {"x": "3", "y": "3", "z": "5"}


def test_drawings_that_are_all_alike_are_no_copies() -> None:
    """They correlate as much as copies of photographs do."""
    prints, rows = rows_of({f"{seed:03d}": saved(stroke(seed)) for seed in range(200)})
    seen = [np.asarray(stroke(seed), float).ravel() for seed in range(200)]
    alike = np.corrcoef(seen) - np.eye(200)
    assert float((alike.max(1) > 0.95).mean()) > 0.9
    assert len(find(prints, rows, 0.95).drop) <= 4 + int((alike.max(1) > 0.995).sum())


def test_the_order_of_the_rows_decides_nothing() -> None:
    pictures = {f"{seed:02d}": saved(scene(seed % 20), "JPEG", quality=90 - seed) for seed in range(40)}
    prints, rows = rows_of(pictures)
    found = find(prints, rows, 0.95)
    assert found == find(prints[::-1], rows[::-1], 0.95)
    assert len(found.drop) == 20


def test_flat_pictures_and_none_at_all() -> None:
    flat = {f"{grey}": saved(Image.new("RGB", (9, 9), (grey, grey, grey))) for grey in range(0, 250, 10)}
    assert find(*rows_of(flat), 0.5).drop == {}
    assert find([], [], 0.5).drop == {}


def test_a_hash_is_signs_of_the_cosine_transform() -> None:
    image = scene(4)
    grey = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L"), float)
    signs = {(row, column): value > 0 for (row, column), value in np.ndenumerate(dctn(grey)[:8, :8])}
    wanted = [signs[place] for place in sorted(signs, key=lambda place: (sum(place), place))]
    assert hashed(image) == np.packbits(wanted).tobytes().hex()


def test_the_correlation_is_that_of_numpy() -> None:
    pictures = {"a": saved(scene(1)), "b": COPIES["compressed"](scene(1))}
    prints, rows = rows_of(pictures)
    ((_, _, said),) = find(prints, rows, 0.5).pairs
    small = [lookalikes._small(Image.open(io.BytesIO(base64.b64decode(value)))) for value in pictures.values()]
    assert said == pytest.approx(np.corrcoef([np.asarray(each, float).ravel() for each in small])[0, 1], abs=1e-4)


RECIPE = 'task = "image_classification"\n[data]\npath = "train"\ntest = "test"\nsplit = { valid = 0.0, test = 0.0 }\n'


def project(folder: Path, more: str = "") -> Life:
    """Thirty pictures to learn from, of which four are copies of those to test on, and one of another to learn from."""
    for split, seeds in (("train", range(30)), ("test", range(100, 110))):
        for seed in seeds:
            path = folder / split / ("odd" if seed % 2 else "even") / f"{seed:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene(seed).save(path)
    for seed in (101, 102, 103):
        scene(seed).save(folder / "train" / "odd" / f"again-{seed}.jpg", quality=70)
    (folder / "train" / "even" / "equal.png").write_bytes((folder / "test" / "even" / "104.png").read_bytes())
    scene(7).resize((30, 30)).save(folder / "train" / "even" / "small.png")
    (folder / "recipe.toml").write_text(RECIPE + more, "utf-8")
    return Life(load_recipe(folder / "recipe.toml", ()))


def test_what_is_tested_on_is_not_learned(tmp_path: Path) -> None:
    lines: list[str] = []

    class View(Silent):
        def line(self, line: str) -> None:
            lines.append(line)

    folder = project(tmp_path).run(View(), "prepare").folders["prepare"]
    funnel = files.read_json(folder / "funnel.json")
    steps = {each["name"]: each["dropped"] for each in funnel["steps"]}
    assert (steps["exact_duplicates"], steps["near_duplicates"]) == (1, 4)
    assert funnel["splits"] == {"train": 30, "valid": 0, "test": 10}
    assert [line for line in lines if line.startswith("4 of these")]
    clusters = [json.loads(line) for line in (folder / "clusters.jsonl").read_text("utf-8").splitlines()]
    kept = {each["members"][0]["text"].split("/")[-1] for each in clusters}
    assert {"101.png", "102.png", "103.png", "104.png"} < kept


def test_keys_of_copies_are_those_of_the_rows(tmp_path: Path) -> None:
    strict = project(tmp_path, "[data.dedup]\ncorrelation = 1.0\n").run(Silent(), "prepare").folders["prepare"]
    steps = {each["name"]: each["dropped"] for each in files.read_json(strict / "funnel.json")["steps"]}
    assert (steps["exact_duplicates"], steps["near_duplicates"]) == (1, 0)
    for task, key in (("image_classification", "threshold=0.5"), ("language_modeling", "correlation=0.9")):
        with pytest.raises(UserError, match=f"data.dedup.{key.partition('=')[0]}"):
            load_recipe(tmp_path / "recipe.toml", [f"task={task}", "data.dedup.correlation=0.95", f"data.dedup.{key}"])


def test_copies_go_with_their_masks_and_boxes(tmp_path: Path) -> None:
    """Two pictures to test on are given to learn from, too, each under another name."""
    for test, folders, masks in ((test_masks, ("train", "test"), True), (test_boxes, ("JPEGImages",) * 2, False)):
        life = test.project(tmp_path / test.__name__)
        root = tmp_path / test.__name__ / "set"
        for name in ("100", "101") if masks else ("042", "043"):
            image = Image.open(root / folders[1] / f"{name}.png")
            image.resize((image.width * 2, image.height * 2)).save(root / folders[0] / f"again{name}.png")
            beside = root / "testannot" / f"{name}.png" if masks else root / "Annotations" / f"{name}.xml"
            again = beside.with_name(f"again{name}{beside.suffix}")
            if masks:
                mask = Image.open(beside)
                again = root / "trainannot" / again.name
                mask.resize((mask.width * 2, mask.height * 2), Image.Resampling.NEAREST).save(again)
            else:
                again.write_bytes(beside.read_bytes())
        folder = life.run(Silent(), "prepare").folders["prepare"]
        steps = {each["name"]: each["dropped"] for each in files.read_json(folder / "funnel.json")["steps"]}
        assert steps["near_duplicates"] == 2, test.__name__
