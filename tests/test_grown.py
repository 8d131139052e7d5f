"""Pictures that grow while a training goes on: what a training sees, and what it costs."""

from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow

from danlu import models
from danlu.data import starter
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.modalities.image import Image
from danlu.recipe import load_recipe
from danlu.tasks.image_classification import ImageClassification
from danlu.train import loop, pace
from tests.tiny_pictures import changed, folders, project, recipe

GROWN = "[options]\ngrow = 0.5\nsize = 32\n"


def task(**options: object) -> ImageClassification:
    return ImageClassification(Image(32, [0.5] * 3, [0.2] * 3), ("a", "b"), None, options)


def test_small_ones_are_cheap() -> None:
    assert pace.effort(task(), "cpu") == 1.0
    shares = (0.25, 0.5625, 1.0)  # of the pixels
    assert pace.effort(task(grow=0.5), "cpu") == pytest.approx(0.2 + 0.8 * sum(shares) / 3)
    assert pace.effort(task(grow=0.5), "cpu", 0.7) == pytest.approx(1.0)
    assert pace.effort(task(grow=0.5), "cpu", 0.0, 0.3) == pytest.approx(0.2 + 0.8 / 4)
    assert pace.effort(task(grow=0.5), "cuda:0") == 1.0


def test_a_training_sees_them_grow_and_its_trial_sees_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, list[int]] = {True: [], False: []}
    loss = ImageClassification.loss
    trying = []

    def watched(self, net, batch, part="model"):  # type: ignore[no-untyped-def]
        seen[bool(trying)].append(batch["pixel_values"].shape[-1])
        return loss(self, net, batch, part)

    def times(*args: object) -> list[float]:
        trying.append(1)
        found = pace_times(*args)  # type: ignore[arg-type]
        trying.clear()
        return found

    pace_times = pace._times
    monkeypatch.setattr(pace, "_times", times)
    monkeypatch.setattr(pace.cost, "_known", dict)
    monkeypatch.setattr(ImageClassification, "loss", watched)
    changed(project(tmp_path, GROWN), "train.steps=9", "train.accumulate=1").run(Silent(), "pretrain")
    assert seen[False] == [16] * 3 + [24] * 3 + [32] * 3
    assert set(seen[True]) == {32}


def test_a_budget_has_room_for_more_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "step_seconds", lambda *_, **__: 0.01)
    plans: list[int] = []
    monkeypatch.setattr(loop.Training, "events", lambda self, *_: iter(plans.append(self.plan.steps) or ()))
    folders(tmp_path / "set" / "train", 10)
    for share in (1.0, 0.5):
        train = (
            f"[options]\ngrow = {share}\nsize = 32\n[train]\nbudget = '10s'\nbatch_tokens = 16\nprecision = 'fp32'\n"
        )
        recipe(tmp_path, 'path = "set/train"\nsplit = { valid = 0.0, test = 0.0 }', "", train).run(Silent(), "pretrain")
    assert plans[1] / plans[0] == pytest.approx(1.05 / (0.05 + pace.effort(task(grow=0.5), "cpu")), rel=0.1)


def test_what_sees_one_size_refuses_to_see_them_grow(tmp_path: Path) -> None:
    path = project(tmp_path).loaded.path
    with pytest.raises(UserError, match=r"options\.grow"):
        load_recipe(path, ["model.arch=mlp", "model.depth=1", "options.grow=0.5"])
    ours = ImageClassification(Image(32, [0.5] * 3, [0.2] * 3), ("a", "b"), None, {"grow": 0.5})
    with pytest.raises(UserError) as refused:
        ours.shaped(models.preset("mlp", 0, 1, 1, image=32, channels=3))
    assert refused.value.code == "E284"
    ours.shaped(models.preset("vit", 0, 1, 1, image=32, channels=3))


def test_the_first_recipe_lets_large_ones_grow(tmp_path: Path) -> None:
    for side in (28, 32):
        for kind in ("light", "dark"):
            (tmp_path / str(side) / kind).mkdir(parents=True)
            for number in range(6):
                grey = 10 * number + 100 * (kind == "light")
                Pillow.new("RGB", (side, side), (grey, 80, 40)).save(tmp_path / str(side) / kind / f"{number}.png")
    written = {side: starter.recipe(tmp_path / str(side), Path("raw"))[0] for side in (28, 32)}
    assert "grow = 0.5" in written[32]
    assert "grow" not in written[28]
    painted, _ = starter.recipe(tmp_path / "32", Path("raw"), "masked_image_modeling")
    assert "flip = true" in painted
    assert "grow" not in painted


def test_what_is_no_smaller_does_not_grow() -> None:
    vit = models.preset("vit", 0, 1, 1, image=28, channels=3, patch=7)
    grown = ImageClassification(Image(28, [0.5] * 3, [0.2] * 3), ("a", "b"), None, {"grow": 0.5})
    grown.shaped(vit)
    seen = [grown.staged({"pixel_values": torch.zeros(1, 3, 28, 28)}, at)["pixel_values"] for at in (0, 0.4, 1)]
    assert [each.shape[-1] for each in seen] == [14, 21, 28]  # whole patches
    for share, size, stages in ((0.95, 32, 3), (0.25, 32, 5), (0.5, 8, 2)):
        narrow = ImageClassification(Image(size, [0.5] * 3, [0.2] * 3), ("a", "b"), None, {"grow": share})
        with pytest.raises(UserError) as refused:
            narrow.shaped(models.preset("cnn", 0, 1, 1, image=size, channels=3, stages=stages))
        assert refused.value.code == "E284"


def test_no_look_at_whole_pictures_ends_a_training_of_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = []
    looked = loop.Training._looked

    def worse(self, held_out):  # type: ignore[no-untyped-def]
        self.position.best, self.position.reached = -1.0, 2.0  # nothing is better
        event = looked(self, held_out)
        stale.append((self.position.step, self.position.stale))
        return event

    monkeypatch.setattr(loop.Training, "_looked", worse)
    keys = ("train.steps=18", "train.evaluate_every=3", "train.stop_early=2")
    changed(project(tmp_path, GROWN), *keys).run(Silent(), "pretrain")
    assert stale == [(3, 0), (6, 0), (9, 0), (12, 0), (15, 1), (18, 2)]
