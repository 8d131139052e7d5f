"""A student learns from a teacher: what the losses are, that each key counts, and that a wrong teacher is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from danlu import Model, files
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.modalities.image import Image
from danlu.recipe import load_recipe
from danlu.stages.prove import prove
from danlu.tasks.answers.teacher import Teacher
from tests.test_pictures import KINDS, folders, pixels, project, recipe
from tests.tiny_life import no_clock

VIT = ["model.arch=vit", "model.width=64", "model.patch=4", "train.lr=0.003"]
SHORT = [*VIT, "train.steps=2"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolutional network that tells stripes apart."""
    return project(tmp_path_factory.mktemp("teacher")).run(Silent(), "pretrain").folders["pretrain"]


def student(folder: Path, *keys: str) -> Life:
    return Life(load_recipe(project(folder).loaded.path, keys))


def weights(life: Life) -> str:
    return files.sha256(life.run(Silent(), "pretrain").folders["pretrain"] / "model.safetensors")


# --- what the losses are ---

LOGITS = torch.tensor([[1.0, -0.5, 0.2], [0.1, 0.3, 2.0]], dtype=torch.float64)
SAID = torch.tensor([[0.0, 3.0, 1.0], [0.5, -1.0, 0.7]], dtype=torch.float64)
TRUE = torch.tensor([0.7, 1.1], dtype=torch.float64)


def shares(logits: torch.Tensor) -> np.ndarray:
    each = np.exp(logits.numpy())
    found: np.ndarray = each / each.sum(1, keepdims=True)
    return found


def test_hard_answers_are_labels() -> None:
    made = Teacher(None, None, torch.arange(3), "hard", 0.25, 3.0)
    wanted = 0.75 * TRUE.numpy() - 0.25 * np.log(shares(LOGITS)[[0, 1], [1, 2]])
    np.testing.assert_allclose(made.mixed(TRUE, LOGITS, SAID).numpy(), wanted, atol=1e-12)


def test_soft_answers_are_shares_at_a_temperature() -> None:
    made = Teacher(None, None, torch.arange(3), "soft", 0.25, 2.0)
    own, theirs = shares(LOGITS / 2), shares(SAID / 2)
    divergence = (theirs * np.log(theirs / own)).sum(1) * 4
    np.testing.assert_allclose(made.mixed(TRUE, LOGITS, SAID), 0.75 * TRUE.numpy() + 0.25 * divergence, atol=1e-12)


def test_soft_gradients_do_not_shrink_with_the_temperature() -> None:
    """At a high temperature the gradient is (own - theirs) / C of centred logits (1503.02531, equation 4)."""
    own = LOGITS.clone().requires_grad_()
    Teacher(None, None, torch.arange(3), "soft", 1.0, 1e4).mixed(TRUE, own, SAID).sum().backward()
    apart = LOGITS - LOGITS.mean(1, keepdim=True) - (SAID - SAID.mean(1, keepdim=True))
    torch.testing.assert_close(own.grad, apart / 3, rtol=1e-3, atol=1e-5)


def test_a_teacher_says_its_classes_in_the_order_of_the_student(teacher: Path) -> None:
    known = Model.from_pretrained(teacher)
    task = type(known.task)(known.processor, KINDS[::-1])
    made = Teacher.of(known, task, "hard", 0.5, 3.0)
    seen = torch.from_numpy(np.stack([pixels(kind, 7).transpose(2, 0, 1) for kind in KINDS]))
    assert made.says(seen).argmax(-1).tolist() == [KINDS[::-1].index(kind) for kind in KINDS]
    alone = torch.cat([made.says(each[None]) for each in seen])
    torch.testing.assert_close(made.says(seen), alone, rtol=0, atol=1e-5)


# --- its life ---


def test_a_student_learns_what_its_teacher_says_and_not_what_wrong_labels_do(teacher: Path, tmp_path: Path) -> None:
    random = np.random.Generator(np.random.PCG64(3))
    folders(tmp_path / "set" / "test", 12, 100)
    for kind in KINDS:
        for index in range(40):  # of each kind half stand among the others
            place = tmp_path / "set" / "train" / KINDS[int(random.integers(2))]
            place.mkdir(parents=True, exist_ok=True)
            Pillow.fromarray(pixels(kind, index)).save(place / f"{kind}{index}.png")
    life = recipe(tmp_path, 'path = "set/train"\ntest = "set/test"\nsplit = { valid = 0.0, test = 0.0 }')
    taught = [*VIT, f"distill.teacher={teacher}", "distill.share=1.0", "train.steps=60"]
    folder = Life(load_recipe(life.loaded.path, taught)).run(Silent()).folders
    assert files.read_json(folder["evaluate"] / "metrics.json")["models"]["base"]["accuracy"] > 0.85
    assert Model.from_pretrained(folder["pretrain"]).form == "vit"
    assert "teacher" not in (folder["pretrain"] / "config.json").read_text("utf-8")


def test_every_key_of_it_changes_the_weights(teacher: Path, tmp_path: Path) -> None:
    """What a good teacher says hard are the labels, so a poor one says it."""
    life = Life(load_recipe(project(tmp_path / "other").loaded.path, ["train.steps=1"]))
    poor = life.run(Silent(), "pretrain").folders["pretrain"]
    kept = tmp_path / "kept"
    shutil.copytree(poor, kept)
    hard, soft = [f"distill.teacher={poor}"], [f"distill.teacher={teacher}", "distill.way=soft"]
    ways = [[], hard, [*hard, "distill.share=0.9"], soft, [*soft, "distill.temperature=1.0"], [*hard, soft[1]]]
    found = [weights(student(tmp_path, *SHORT, *way)) for way in ways]
    assert len(set(found)) == len(found)
    assert weights(student(tmp_path, *SHORT, f"distill.teacher={kept}")) == found[1], "the place of a teacher is none"


def test_micro_batches_learn_the_same(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_clock(monkeypatch)
    found = []
    anew = [
        "options.crop=2",
        "options.flip=true",
        "distill.way=soft",
        f"distill.teacher={teacher}",
        "train.optimizer=sgd",
    ]
    for parts in (1, 4):
        life = student(tmp_path, *VIT, *anew, "train.steps=3", f"train.accumulate={parts}")
        found.append(Model.from_pretrained(life.run(Silent(), "pretrain").folders["pretrain"]).net.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=0, atol=2e-6)


# --- what is refused ---


def test_a_teacher_of_other_classes_or_pictures_is_refused(teacher: Path) -> None:
    known = Model.from_pretrained(teacher)
    with pytest.raises(UserError) as refused:
        Teacher.of(known, type(known.task)(known.processor, ["across", "round"]), "hard", 0.5, 3.0)
    assert (refused.value.code, refused.value.fields["missing"]) == ("E625", "round")
    larger = Image(24, known.processor.mean, known.processor.std)
    with pytest.raises(UserError) as refused:
        Teacher.of(known, type(known.task)(larger, KINDS), "hard", 0.5, 3.0)
    assert refused.value.code == "E626"
    assert "12 x 12" in refused.value.render()


def test_a_teacher_of_another_task_is_refused_before_anything_runs(teacher: Path, tmp_path: Path) -> None:
    path = tmp_path / "other"
    shutil.copytree(teacher, path)
    config = files.read_json(path / "config.json")
    config["danlu"]["task"] = "segmentation"
    (path / files.MANIFEST).unlink()
    files.write_json(path / "config.json", config)
    with pytest.raises(UserError) as refused:
        student(tmp_path, f"distill.teacher={path}").run(Silent(), "pretrain")
    assert refused.value.code == "E627"


@pytest.mark.parametrize(
    "keys", [["distill.teacher=x", "distill.temperature=2.0"], ["distill.teacher=x", "task=segmentation"]]
)
def test_what_would_do_nothing_is_refused(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(UserError, match="do nothing"):
        student(tmp_path, *keys)


# --- what is proved ---


def test_a_recipe_with_a_teacher_is_proved_with_it(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = student(tmp_path, *SHORT, f"distill.teacher={teacher}").loaded
    assert prove(loaded, Silent()).failed() == []
    mixed = Teacher.mixed  # a mean of means: what each micro-batch says of all its pictures
    monkeypatch.setattr(Teacher, "mixed", lambda self, *said: mixed(self, *said).mean().expand(len(said[0])) ** 2)
    found = prove(loaded, Silent())
    assert "pretrain.accumulated" in found.failed(), found.render()
