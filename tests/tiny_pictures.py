"""Lives of pictures that take some seconds: what is drawn, and what every task that looks at pictures keeps."""

import base64
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from danlu import Model, cli, files
from danlu.config import Serve
from danlu.data import starter
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from danlu.serve.run import background
from danlu.stages.prove import prove
from danlu.train.session import Interrupted
from tests import tiny_task
from tests.tiny_life import no_clock

KINDS = ("across", "down")
DATA = 'path = "set/train"\ntest = "set/test"\nsplit = { valid = 0.1, test = 0.0 }'
_TRAIN = """
[model]
{model}

[train]
steps = {steps}
lr = {lr}
optimizer = "{optimizer}"
batch_tokens = 16
precision = "fp32"
dropout = 0.0

[system]
threads = 1
"""


def pixels(kind: str, seed: int, side: int = 12) -> np.ndarray:
    """Stripes that run across or down, from a random phase, with noise (side, side, 3)."""
    random = np.random.Generator(np.random.PCG64([seed, KINDS.index(kind)]))
    waves = np.sin(np.arange(side) * 1.6 + random.uniform(0, 6))
    grey = 128 + 90 * (waves[:, None] if kind == "across" else waves[None]) + random.normal(0, 12, (side, side))
    return coloured(grey)


def coloured(grey: np.ndarray) -> np.ndarray:
    """Numbers (H, W) as a picture (H, W, 3)."""
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)


def folders(root: Path, count: int, start: int = 0) -> Path:
    """A folder of stripes for each class."""
    for kind in KINDS:
        (root / kind).mkdir(parents=True, exist_ok=True)
        for index in range(start, start + count):
            Image.fromarray(pixels(kind, index)).save(root / kind / f"{index:03d}.png")
    return root


def saved(picture: np.ndarray | Image.Image, kind: str = "PNG", **how: object) -> bytes:
    """The bytes of its file."""
    file = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(file, kind, **how)
    return file.getvalue()


def row(picture: np.ndarray | bytes) -> dict[str, str]:
    """What is asked about a picture, or about the bytes of its file."""
    return {"image": base64.b64encode(picture if isinstance(picture, bytes) else saved(picture)).decode()}


def train(
    model: str = "depth = 1\nwidth = 8", *, steps: int = 60, lr: float = 0.01, optimizer: str = "adamw"
) -> str:  # fmt: skip
    """How it is trained, in a recipe."""
    return _TRAIN.format(model=model, steps=steps, lr=lr, optimizer=optimizer)


def recipe(folder: Path, data: str, more: str = "", train: str = train(), task: str = "image_classification") -> Life:
    (folder / "recipe.toml").write_text(f'task = "{task}"\n[data]\n{data}\n{train}{more}', "utf-8")
    return Life(load_recipe(folder / "recipe.toml", ()))


def project(folder: Path, more: str = "") -> Life:
    """Stripes to learn from and to be tested on, told apart by a network of convolutions."""
    folders(folder / "set" / "train", 40)
    folders(folder / "set" / "test", 12, 100)
    return recipe(folder, DATA, more)


def changed(life: Life, *keys: str) -> Life:
    """The same recipe with other keys."""
    return Life(load_recipe(life.loaded.path, keys))


def begun(folder: Path) -> tuple[str, int, Path]:
    """The recipe that danlu writes for the files in raw/, how many rows it saw, and what they are encoded to by it."""
    written, rows = starter.recipe(folder / "raw", Path("raw"))
    (folder / "recipe.toml").write_text(written, "utf-8")
    return written, rows, Life(load_recipe(folder / "recipe.toml", ())).run(Silent(), "encode").folders["encode"]


def predicted(
    model: Path, picture: np.ndarray, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What the command says of a picture; it writes where one works, and nothing beside the picture."""
    here, path = folder / "here", folder / "there" / "asked.png"
    for each in (here, path.parent):
        each.mkdir(exist_ok=True)
    patch.chdir(here)
    path.write_bytes(saved(picture))
    assert cli.main(["predict", str(model), str(path), "--json"]) == 0
    assert [each.name for each in path.parent.iterdir()] == ["asked.png"]
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def served(model: Path, picture: np.ndarray) -> dict[str, Any]:
    """What a server says of a picture."""
    with background(Model.from_pretrained(model), "tiny", Serve(port=0)) as url:
        (said,) = tiny_task.asked(url, row(picture))["predictions"]
    answer: dict[str, Any] = said
    return answer


# --- what all of them keep --------------------------------------------------------------------------------


def learns_the_same_in_parts(
    life: Life, patch: pytest.MonkeyPatch, *keys: str, parts: Iterable[int] = (1, 2, 4), atol: float = 2e-5
) -> None:
    """What a picture looks like in an epoch does not depend on which others are cut off with it."""
    no_clock(patch)
    weights = []
    for count in parts:
        made = changed(life, f"train.accumulate={count}", *keys).run(Silent(), "pretrain").folders["pretrain"]
        weights.append(Model.from_pretrained(made).net.state_dict())
    for other in weights[1:]:
        for name, tensor in weights[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=atol)


def only_weights_change(life: Life, encoded: Path, ways: Iterable[tuple[str, ...]], steps: int) -> None:
    """Every way to see pictures anew makes other weights, of the same encoding."""
    found = []
    for options in ((), *ways):
        keys = (f"options.{each}" for each in options)
        made = changed(life, f"train.steps={steps}", *keys).run(Silent(), "pretrain").folders
        assert made["encode"].name == encoded.name
        found.append(files.sha256(made["pretrain"] / "model.safetensors"))
    assert len(set(found)) == len(found)


def goes_on_once_stopped(life: Callable[..., Life], root: Path, patch: pytest.MonkeyPatch) -> None:
    """Stopped by its deadline between two steps, and gone on with: the same weights, bit by bit.

    `life` makes one in a folder, with further keys.
    """
    no_clock(patch)
    straight = life(root / "straight").run(Silent(), "pretrain").folders["pretrain"]
    with pytest.raises(Interrupted):
        life(root / "stopped", "train.deadline=0.05s", "train.save_every=7").run(Silent(), "pretrain")
    assert list((root / "stopped").rglob("checkpoints/*"))
    again = life(root / "stopped", "train.save_every=7").run(Silent(), "pretrain").folders["pretrain"]
    assert again.name == straight.name
    assert files.sha256(again / "model.safetensors") == files.sha256(straight / "model.safetensors")


def answers_the_same_once_saved(model: Path, again: Path, picture: np.ndarray) -> None:
    ours = Model.from_pretrained(model)
    ours.save_pretrained(again)
    assert Model.from_pretrained(again).judge([row(picture)]) == ours.judge([row(picture)])


def is_exact(life: Life, *keys: str) -> None:
    certificate = prove(changed(life, *keys).loaded, Silent())
    assert certificate.error() is None, certificate.render()


def is_forecast(life: Life, capsys: pytest.CaptureFixture[str], *keys: str, stages: int = 5) -> None:
    assert cli.main(["run", str(life.loaded.path), "--plan", "--json", *keys]) == 0
    assert len(json.loads(capsys.readouterr().out)) == stages


def is_measured(model: Path, other: Path, figure: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(model), str(other), "--json"]) == 0
    assert figure in capsys.readouterr().out


def names_a_bad_file(life: Callable[[str], Life], name: str, reason: str, rows: int) -> dict[str, Path]:
    """A life that says further keys of [data] refuses the file with its reason, or skips it and keeps so many rows."""
    with pytest.raises(UserError) as refused:
        life("").run(Silent(), "encode")
    assert refused.value.code == "E208"
    assert name in refused.value.render()
    assert reason in refused.value.render()
    made = life('\nbad_records = "skip"').run(Silent(), "encode").folders
    splits = files.read_json(made["encode"] / "tokens.json")["splits"]
    assert splits["train"]["rows"] + splits["valid"]["rows"] == rows
    return dict(made)
