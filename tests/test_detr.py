"""Set prediction: the matching, its losses and the life of a detector that says a set of boxes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

from danlu import Model, files, models, pixels, tasks
from danlu.data import shapes, store
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.modalities.image import Image
from danlu.models.architecture import Architecture, build, computed
from danlu.nn import matching
from danlu.nn.network import Detection, Network
from danlu.nn.queries import Queries
from danlu.proof.gradients import accumulated, difference, gradient
from danlu.recipe import load_recipe
from danlu.tasks.object_detection import ObjectDetection
from tests import tiny_pictures
from tests.test_boxes import drawn, farthest, of_voc, recipe

SIZE, CLASSES = 48, 3


# --- matching and losses ---


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=st.integers(0, 9), columns=st.integers(0, 9), seed=st.integers(0, 10**6), steps=st.sampled_from([3, 10**6]))
def test_a_matching_costs_what_the_best_costs(rows: int, columns: int, seed: int, steps: int) -> None:
    costs = np.random.Generator(np.random.PCG64(seed)).integers(-steps, steps, (rows, columns)) / steps
    found = matching.assignment(costs)
    assert len(set(found[0].tolist())) == len(set(found[1].tolist())) == len(found[0]) == min(rows, columns)
    assert costs[found].sum() == pytest.approx(costs[linear_sum_assignment(costs)].sum(), abs=1e-12)


def test_what_is_no_number_is_matched_last() -> None:
    costs = np.array([[np.nan, 1.0], [np.inf, np.nan], [2.0, 5.0]])
    answers, places = matching.assignment(costs)
    assert sorted(zip(answers.tolist(), places.tolist(), strict=True)) == [(0, 1), (2, 0)]


def told(seed: int, queries: int = 7) -> tuple[Tensor, Tensor]:
    """Answers and true boxes of four pictures: of one none, of another more boxes than answers."""
    random = torch.Generator().manual_seed(seed)
    said = torch.randn(4, queries, 4 + CLASSES + 1, generator=random, dtype=torch.float64)
    boxes = torch.full((4, 9, 5), -1.0)
    for picture, count in enumerate((3, 0, 5, 9)):
        corner = torch.rand(count, 2, generator=random) * 20
        sides = torch.rand(count, 2, generator=random) * 20 + 4
        kinds = torch.randint(CLASSES, (count, 1), generator=random)
        boxes[picture, :count] = torch.cat((corner, corner + sides, kinds), 1)
    return said, boxes


@pytest.mark.parametrize("seed", range(4))
def test_losses_are_those_of_transformers(seed: int) -> None:
    said, boxes = told(seed)
    said = said[:3]
    known = [each[each[:, 4] >= 0].double() for each in boxes[:3]]
    targets = [{"class_labels": each[:, 4].long(), "boxes": matching.centred(each[:, :4] / SIZE)} for each in known]
    given = {"logits": said[..., 4:], "pred_boxes": said[..., :4].sigmoid()}
    theirs = ImageLoss(HungarianMatcher(1, 5, 2), CLASSES, matching.NONE, ["labels", "boxes"]).double()
    wanted = theirs(given, targets)
    found, held = matching.losses(said, boxes[:3], SIZE), sum(map(len, known))
    weights = held + matching.NONE * (said.shape[0] * said.shape[1] - held)  # a mean by weights, as torch has it
    assert float(found["kind"]) == pytest.approx(float(wanted["loss_ce"]) * weights, rel=1e-6)
    assert float(found["corner"]) == pytest.approx(5 * float(wanted["loss_bbox"]) * held, rel=1e-6)
    assert float(found["overlap"]) == pytest.approx(2 * float(wanted["loss_giou"]) * held, rel=1e-6)


def test_every_box_has_one_answer_and_no_answer_two_boxes() -> None:
    said, boxes = told(5)
    picture, answer, place = matching.matched(said, boxes, SIZE)
    assert torch.bincount(picture, minlength=4).tolist() == [3, 0, 5, 7], "two boxes are left, for there is no answer"
    assert len({*zip(picture.tolist(), answer.tolist(), strict=True)}) == len(picture)
    assert len({*zip(picture.tolist(), place.tolist(), strict=True)}) == len(picture)


def test_middles_and_corners_are_two_ways_to_say_one_box() -> None:
    boxes = told(2)[1][0, :3, :4]
    assert matching.corners(matching.centred(boxes)).numpy() == pytest.approx(boxes.numpy(), abs=1e-5)


# --- the network ---


def shape(size: int = SIZE, **sizes: int) -> Architecture:
    return models.preset("detr", 0, 1, 2, image=size, **({"width": 4, "queries": 6} | sizes))


def learner(size: int = SIZE) -> ObjectDetection:
    made: ObjectDetection = tasks.load("object_detection")(Image(size, [0.5] * 3, [0.2] * 3), ["a", "b", "c"])
    return made


def network(dtype: torch.dtype = torch.float64) -> Network:
    return build(learner().shaped(shape()), torch.Generator().manual_seed(1)).to(dtype)


def test_it_answers_as_its_last_layer_does_and_every_layer_learns() -> None:
    net, (_, boxes) = network(), told(1)
    assert isinstance(net, Detection) and isinstance(net.head, Queries)
    seen = {"pixel_values": torch.rand(4, 3, SIZE, SIZE, dtype=torch.float64)}
    layers = net.layers(seen)
    assert len(layers) == 2
    torch.testing.assert_close(layers[-1], net(seen))
    assert layers[0].shape == (4, 6, 4 + CLASSES + 1)
    batch = {"pixel_values": torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8), "boxes": boxes}
    found = learner().loss(net, batch)
    each = [matching.losses(told, boxes, SIZE) for told in net.layers(learner().processor.scaled(batch))]
    for name, loss in found.items():
        assert loss.item() == pytest.approx(sum(losses[name].item() for losses in each))


def test_a_step_that_is_cut_has_the_gradient_of_the_whole() -> None:
    task, net, (_, boxes) = learner(), network(), told(3)
    random = torch.Generator().manual_seed(2)
    whole = {"input_ids": torch.zeros(4, 1, dtype=torch.long), "segment_ids": torch.ones(4, 1, dtype=torch.long),
             "pixel_values": torch.randint(0, 256, (4, 3, SIZE, SIZE), generator=random, dtype=torch.uint8),
             "boxes": boxes}  # fmt: skip
    cut = [{name: each[a:b] for name, each in whole.items()} for a, b in ((0, 1), (1, 2), (2, 4))]
    wanted = gradient(task, net, [whole])
    assert difference(accumulated(task, net, cut), wanted) < 1e-12
    assert all(bool(each.any()) for each in wanted.values()), "every weight learns"
    alone = gradient(task, net, cut[:1])
    assert difference(alone, wanted) > 0.1, "a part is not the whole"


def test_a_folder_says_what_the_network_is() -> None:
    made = learner().shaped(shape(dropout=0))  # type: ignore[call-arg]
    family = models.family("detr")
    assert computed(family.from_hf(family.to_hf(made, {}))) == computed(made)
    assert models.carrier(made) == "detr"
    with pytest.raises(UserError) as refused:
        family.from_hf({"model_type": "detr", "architectures": ["DetrForObjectDetection"]})
    assert refused.value.code == "E320"
    with pytest.raises(UserError) as refused:
        models.preset("detr", 0, 1, 2, patch=4)
    assert refused.value.code == "E323"


# --- its life ---

MORE = "[options]\nsize = 48\n"
DATA = 'path = "set"\ntest = "set/ImageSets/Main/test.txt"\nsplit = { valid = 0.0, test = 0.0 }'
SHORT = ["model.arch=detr", "model.width=8", "model.queries=6", "train.steps=120", "train.lr=3e-3"]


def project(folder: Path) -> Life:
    """Eight pictures to learn by heart, and four others."""
    of_voc(folder / "set", 12, 4)
    return Life(load_recipe(recipe(folder, MORE, DATA).loaded.path, SHORT))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("detr")).run(Silent()).folders)


def test_it_learns_pictures_by_heart(lived: dict[str, Path]) -> None:
    rows = [shapes.loaded(row) for row in store.read(lived["prepare"] / "rows", "train")]
    model = Model.from_pretrained(lived["pretrain"])
    assert len(rows) == 8
    assert model.task.score(model.measured(rows), rows)["map_50"] > 0.6


def test_figures_have_intervals_and_stand_beside_the_mean_boxes(lived: dict[str, Path]) -> None:
    told = files.read_json(lived["evaluate"] / "metrics.json")
    assert told["split"] == "test"
    for model in ("base", "mean_boxes"):
        figures, intervals = told["models"][model], told["intervals"]["models"][model]
        for name in ("map_50", "map"):
            assert intervals[name][0] <= figures[name] <= intervals[name][1]
    assert "f1" not in told["models"]["base"], "there is one for each class"
    assert [(each["label"], each["rows"]) for each in told["each"]] == [("bright", 4), ("dark", 4)]
    assert all(each["f1_low"] <= each["f1"] <= each["f1_high"] for each in told["each"])


def test_the_mean_boxes_look_at_no_picture(lived: dict[str, Path]) -> None:
    task = Model.from_pretrained(lived["pretrain"]).task
    train = [_row([[0, 0, 32, 24, "bright"], [32, 0, 64, 24, "dark"]]), _row([[16, 24, 48, 48, "bright"]])]
    (said,) = task.baseline(train, [_row([], wide=32)], 2)["mean_boxes"]
    assert said["boxes"] == [
        {"label": "bright", "score": 1.0, "box": [4.0, 12.0, 20.0, 36.0]},
        {"label": "dark", "score": 0.5, "box": [16.0, 0.0, 32.0, 24.0]},
    ]


def _row(boxes: list[list[Any]], wide: int = 64) -> dict[str, str]:
    picture = pixels.png(np.zeros((48, wide, 3), np.uint8))
    return {"image": pixels.written(picture), "boxes": json.dumps(boxes)}


def test_it_is_drawn_and_served_as_the_other_detector_is(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, things = drawn(3)
    said = tiny_pictures.predicted(lived["pretrain"], picture, tmp_path, capsys, monkeypatch)
    assert farthest(said, things) < 12
    assert tiny_pictures.served(lived["pretrain"], picture)["boxes"] == said["boxes"]
    tiny_pictures.answers_the_same_once_saved(lived["pretrain"], tmp_path / "again", picture)


def test_its_training_is_exact(tmp_path: Path) -> None:
    tiny_pictures.is_exact(project(tmp_path), *SHORT)


def test_plan_forecasts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pictures.is_forecast(project(tmp_path), capsys, *SHORT)
