"""The life of pictures that make others: raw files in, new pictures over HTTP out, by diffusion and by a GAN."""

import base64
import io
import json
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from danlu import AutoModel, Model, cli, files
from danlu.config import Serve
from danlu.data import starter
from danlu.data.augment import Lots
from danlu.errors import UserError
from danlu.graph import Life, Silent, runs
from danlu.recipe import load_recipe
from danlu.report import page
from danlu.serve.run import background
from danlu.tasks.answers.picture import grid
from tests import tiny_task
from tests.tiny_pictures import (
    DATA,
    changed,
    folders,
    goes_on_once_stopped,
    is_exact,
    is_forecast,
    learns_the_same_in_parts,
    recipe,
    train,
)
from tests.tiny_pictures import (
    row as picture,
)

DIFFUSION, GAN = TASKS = ("image_generation", "adversarial_image_generation")


def project(folder: Path, task: str, *keys: str, steps: int = 30, model: str = "width = 8") -> Life:
    """Stripes, of which the classes are learned, too."""
    folders(folder / "set" / "train", 40)
    folders(folder / "set" / "test", 12, 100)
    lr = 0.01 if task == DIFFUSION else 0.001
    told = train(model, steps=steps, lr=lr, optimizer="adam")
    return changed(recipe(folder, DATA, "[options]\nclasses = true\n", told, task), *keys)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """Each life, judged by a classifier of the same pictures."""
    root = tmp_path_factory.mktemp("generation")
    folders(root / "judge" / "set" / "train", 40)
    folders(root / "judge" / "set" / "test", 12, 100)
    judge = recipe(root / "judge", DATA).run(Silent(), "pretrain").folders["pretrain"]
    steps = {DIFFUSION: 150, GAN: 30}
    made = {}
    for task in TASKS:
        life = project(root / task, task, f"evaluate.judge={judge}", steps=steps[task])
        made[task] = dict(life.run(Silent()).folders)
    return made | {"judge": {"pretrain": judge}}


def told(folder: dict[str, Path]) -> dict[str, Any]:
    table: dict[str, Any] = files.read_json(folder["evaluate"] / "metrics.json")
    return table


def test_noise_is_found_better_than_by_nobody(lived: dict[str, dict[str, Path]]) -> None:
    assert told(lived[DIFFUSION])["models"]["base"]["loss"] < 0.5, "who finds none has a loss of 1"


@pytest.mark.parametrize("task", TASKS)
def test_what_is_made_is_judged_beside_real_pictures(lived: dict[str, dict[str, Path]], task: str) -> None:
    table = told(lived[task])
    ours, real = table["models"]["base"], table["models"]["real"]
    assert set(real) == {"frechet", "sure", "rarest", "commonest", "nearest"} < set(ours)
    assert 0 <= ours["as_asked"] <= 1
    assert ours["as_asked"] > 0.75 or task == GAN, "one of two classes at random: 0.5"
    assert 0 <= real["frechet"] < ours["frechet"]
    assert real["sure"] > 0.5
    for spread in table["classes"]["base"].values():
        assert set(spread) == {"across", "down"}
        assert sum(spread.values()) == pytest.approx(1)


@pytest.mark.parametrize("task", TASKS)
def test_the_report_shows_what_is_made(lived: dict[str, dict[str, Path]], task: str) -> None:
    folder = lived[task]["evaluate"]
    data = (folder / "samples.png").read_bytes()
    sheet = Pillow.open(io.BytesIO(data))
    assert sheet.size == (5 * 14 - 2, 5 * 14 - 2)  # 24 pictures of 12 pixels, as many as are held out
    (run,) = runs(folder.parents[1])
    assert f"data:image/png;base64,{base64.b64encode(data).decode()}" in page(run, [])


def test_without_a_judge_only_what_needs_none_is_said(tmp_path: Path) -> None:
    table = told(project(tmp_path, GAN, steps=2).run(Silent()).folders)
    assert set(table["models"]["real"]) == {"nearest"}
    assert set(table["models"]["base"]) == {"loss", "told_apart", "nearest"}


@pytest.mark.parametrize("task", TASKS)
def test_pictures_are_learned_without_their_classes(task: str, tmp_path: Path) -> None:
    folder = project(tmp_path, task, "options.classes=false", steps=2).run(Silent(), "pretrain").folders["pretrain"]
    model = Model.from_pretrained(folder)
    assert model.task.labels == ()
    assert "labels" not in model.predict('{"count": 2}')
    with pytest.raises(UserError) as refused:
        model.predict('{"label": "down"}')
    assert (refused.value.code, refused.value.fields["name"]) == ("E621", "label")


def test_a_class_can_be_asked_for(lived: dict[str, dict[str, Path]]) -> None:
    """By its name; and what guidance does lies on the line through what is found with and without it."""
    model, judge = (Model.from_pretrained(lived[each]["pretrain"]) for each in (DIFFUSION, "judge"))
    assert model.predict('{"count": 3}')["labels"] == ["across", "down", "across"]
    for number, kind in enumerate(model.task.labels):
        assert model.predict(json.dumps({"count": 2, "label": kind}))["labels"] == [kind] * 2
        made = model.task.pictures(model.net, 20, 3, [number] * 20)
        said = judge.judge([picture(each.transpose(1, 2, 0)) for each in made])
        assert sum(each["label"] == kind for each in said) > 14
    pixels, level, classes = torch.randn(2, 3, 12, 12), torch.tensor([0.9, 0.9]), torch.tensor([0, 1])
    seen = {"pixel_values": pixels, "level": level}
    with torch.no_grad():
        plain, own = model.net(seen), model.net(seen | {"classes": classes})
        assert not torch.allclose(plain, own)
        model.task.chosen = {**model.task.chosen, "levels": 10}
        for share in (0.0, 1.0, 3.0):
            told = torch.lerp(plain, own, share)
            left = model.task.left
            clean = ((pixels - (1 - left[-1]).sqrt() * told) / left[-1].sqrt()).clamp(-1, 1).float()
            made = model.task.made(model.net, pixels, classes, {"steps": 1, "guidance": share})
            torch.testing.assert_close(made, clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_pictures_are_made_alike_by_command_and_server(
    lived: dict[str, dict[str, Path]],
    task: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, path = str(lived[task]["pretrain"]), tmp_path / "made.png"
    assert cli.main(["predict", folder, '{"count": 4, "seed": 7}', "--picture", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    made = np.asarray(Pillow.open(io.BytesIO(path.read_bytes())))
    assert made.shape == (26, 26, 3)
    assert cli.main(["predict", folder, '{"count": 4, "seed": 8}', "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert (other["count"], other["seed"]) == (4, 8)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples.png").write_bytes(b"one's own")
    assert cli.main(["predict", folder, '{"count": 4, "seed": 7}']) == 0
    assert "samples-2.png" in capsys.readouterr().out
    assert (tmp_path / "samples.png").read_bytes() == b"one's own"
    assert (tmp_path / "samples-2.png").read_bytes() == path.read_bytes()
    with background(Model.from_pretrained(folder), "tiny", Serve(port=0)) as url:
        (said,) = tiny_task.asked(url, {"count": 4, "seed": 7})["predictions"]
        assert base64.b64decode(said["image"]) == path.read_bytes()
        assert said["image"] != other["image"]
        (usual,) = tiny_task.asked(url, {})["predictions"]
        assert (usual["count"], usual["seed"]) == (64, 1)
        (down,) = tiny_task.asked(url, {"count": 2, "label": "down"})["predictions"]
        assert down["labels"] == ["down"] * 2
        if task == DIFFUSION:
            (led,) = tiny_task.asked(url, {"count": 2, "label": "down", "guidance": 3})["predictions"]
            assert led["image"] != down["image"]
            assert (led["guidance"], led["steps"], down["guidance"]) == (3, 50, 2)
        for wrong in (
            {"count": 0},
            {"count": 1000},
            {"count": "4"},
            {"number": 4},
            {"label": "up"},
            {"label": 1},
            {"label": ["down", "across"]},
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                tiny_task.asked(url, wrong)
            assert refused.value.code == 400
            refused.value.close()


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_is_of_its_seed_and_place_alone(lived: dict[str, dict[str, Path]], task: str) -> None:
    model = Model.from_pretrained(lived[task]["pretrain"])
    few, many = (model.task.pictures(model.net, count, 3) for count in (2, 5))
    assert np.abs(few.astype(int) - many[:2]).max() <= 1
    assert np.abs(many[0].astype(int) - many[1]).max() > 1


@pytest.mark.parametrize("task", TASKS)
def test_a_model_makes_the_same_once_it_is_saved(lived: dict[str, dict[str, Path]], task: str, tmp_path: Path) -> None:
    model = Model.from_pretrained(lived[task]["pretrain"])
    model.save_pretrained(tmp_path / "again")
    again = Model.from_pretrained(tmp_path / "again")
    assert again.predict('{"count": 2}') == model.predict('{"count": 2}')
    assert again.task.chosen == model.task.chosen


@pytest.mark.parametrize(
    ("wish", "code"),
    [('{"count": 300}', "E621"), ('{"size": 3}', "E621"), ("[1]", "E622"), ("four", "E622"),
     ('{"label": "up"}', "E621"), ('{"label": 1}', "E621"), ('{"steps": 251}', "E621"),
     ('{"guidance": 2}', "E621"), ('{"count": true}', "E621")],
)  # fmt: skip
def test_a_wish_that_cannot_be_is_refused(lived: dict[str, dict[str, Path]], wish: str, code: str) -> None:
    with pytest.raises(UserError) as refused:
        Model.from_pretrained(lived[GAN]["pretrain"]).predict(wish)
    assert refused.value.code == code


def test_a_model_that_makes_nothing_writes_none(lived: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    judge = str(lived["judge"]["pretrain"])
    assert cli.main(["predict", judge, "x.png", "--picture", str(tmp_path / "x.png")]) != 0
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("task", TASKS)
def test_killed_and_run_again(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the mean of the weights, too."""
    goes_on_once_stopped(lambda root, *more: project(root, task, "train.average=0.9", *more), tmp_path, monkeypatch)


@pytest.mark.parametrize("task", TASKS)
def test_micro_batches_learn_the_same(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn for a picture in an epoch does not depend on which others are cut off with it."""
    learns_the_same_in_parts(project(tmp_path, task, steps=6), monkeypatch, "train.optimizer=sgd")


@pytest.mark.parametrize("task", TASKS)
def test_its_training_is_exact(task: str, tmp_path: Path) -> None:
    is_exact(project(tmp_path, task))


OTHERS = [
    (DIFFUSION, "train.average=0.05"), (GAN, "train.average=0.05"),
    (DIFFUSION, "options.schedule=linear"), (DIFFUSION, "options.levels=100"), (DIFFUSION, "train.dropout=0.2"),
    (DIFFUSION, "options.classes=false"), (GAN, "options.classes=false"),
    (DIFFUSION, "model.depth=2"), (GAN, "options.latent=8"), (GAN, "train.dropout=0.2"), (GAN, "model.depth=2"),
]  # fmt: skip


def test_every_key_changes_what_is_learned(tmp_path: Path) -> None:
    found = []
    for task, *keys in [(DIFFUSION,), (GAN,), *OTHERS]:
        folder = project(tmp_path, task, *keys, steps=3).run(Silent(), "pretrain").folders["pretrain"]
        found.append(files.sha256(folder / "model.safetensors"))
    assert len(set(found)) == len(found)


def test_more_steps_and_another_size_make_other_pictures(tmp_path: Path, lived: dict[str, dict[str, Path]]) -> None:
    model = Model.from_pretrained(lived[DIFFUSION]["pretrain"])
    usual = model.task.pictures(model.net, 1, 1, [0])
    for wish in ({"steps": 5}, {"guidance": 3.0}):
        told = model.predict(json.dumps({"count": 1, **wish}))["image"]
        assert not np.array_equal(model.task.pictures(model.net, 1, 1, [0], **wish), usual)
        assert told != model.predict('{"count": 1}')["image"]
    small = project(tmp_path, GAN, "options.size=8", steps=2).run(Silent(), "pretrain").folders["pretrain"]
    assert Pillow.open(
        io.BytesIO(base64.b64decode(Model.from_pretrained(small).predict('{"count": 1}')["image"]))
    ).size == (8, 8)


def test_adversaries_are_taken_as_they_end(tmp_path: Path) -> None:
    """The discriminator's loss says nothing of the pictures: whatever it is, the last weights are the model's."""
    life = project(tmp_path, GAN, "train.evaluate_every=5", steps=20)
    told = files.read_json(life.run(Silent(), "pretrain").folders["pretrain"] / "metrics.json")
    assert told["best_step"] == 20


@pytest.mark.parametrize(
    ("task", "key"),
    [
        (GAN, "train.stop_early=2"),
        (DIFFUSION, "evaluate.ngram=3"),
        (DIFFUSION, "options.guidance=3.0"),
        (DIFFUSION, "model.arch=cnn"),
        (DIFFUSION, "model.heads=2"),
        ("image_classification", "evaluate.judge=x"),
        ("image_classification", "model.arch=ddpm"),
    ],
)
def test_keys_without_effect_are_refused(tmp_path: Path, task: str, key: str) -> None:
    life = project(tmp_path, task) if task in TASKS else recipe(tmp_path, DATA)
    keys = ["options.classes=false"] if "guidance" in key else []
    load_recipe(life.loaded.path, keys)
    with pytest.raises(UserError):
        load_recipe(life.loaded.path, [*keys, key])


def test_a_judge_that_is_none_is_named_before_anything_is_learned(
    tmp_path: Path, lived: dict[str, dict[str, Path]]
) -> None:
    for wrong, code in ((lived[GAN]["pretrain"], "E624"), (tmp_path / "none", "E304")):
        with pytest.raises(UserError) as refused:
            project(tmp_path, GAN, f"evaluate.judge={wrong}").run(Silent())
        assert refused.value.code == code
    assert not list(tmp_path.rglob("pretrain-*"))


def test_plan_forecasts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for task in TASKS:
        is_forecast(project(tmp_path, task), capsys)


def test_normal_draws_are_normal_and_of_their_lot_alone() -> None:
    lots = torch.arange(500) * 977 + 5
    drawn = Lots(lots).normal(301)
    assert drawn.shape == (500, 301)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.01)
    assert float(drawn.std()) == pytest.approx(1, abs=0.01)
    assert float(drawn.abs().max()) > 4
    assert float(torch.corrcoef(drawn.T[:20]).fill_diagonal_(0).abs().max()) < 0.2
    assert Lots(lots[7:9]).normal(301).equal(drawn[7:9])


def test_a_grid_holds_every_picture() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 1, 3, 3), np.uint8)
    sheet = grid(pictures)
    assert sheet.shape == (8, 13)
    assert [int(sheet[place // 3 * 5, place % 3 * 5]) for place in range(5)] == [0, 1, 2, 3, 4]
    assert set(sheet[:, 3]) == {255}


@pytest.mark.parametrize("task", ["image_generation", "adversarial_image_generation", "masked_image_modeling"])
@pytest.mark.parametrize(
    ("path", "code", "said"),
    [("nowhere", "E202", "nowhere"), ("hollow", "E203", "png"), ("blank.png", "E222", "0 B")],
)
def test_pictures_that_are_not_there_are_said_before_anything_slow(
    task: str, path: str, code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hollow").mkdir()
    (tmp_path / "blank.png").write_bytes(b"")
    (tmp_path / "recipe.toml").write_text(f'task = "{task}"\n[data]\npath = "{path}"\n', "utf-8")
    monkeypatch.setattr("danlu.stages.prepare.run", lambda context: pytest.fail("it was begun"))
    with pytest.raises(UserError) as refused:
        Life(load_recipe(tmp_path / "recipe.toml")).run(Silent())
    assert refused.value.code == code
    assert said in str(refused.value)


@pytest.mark.parametrize("task", [*TASKS, "masked_image_modeling"])
def test_a_recipe_for_pictures_alone_is_written_where_it_is_asked_for(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their classes, where they have some; it runs as it stands."""
    monkeypatch.chdir(tmp_path)
    folders(tmp_path / "set" / "train", 40)
    assert cli.main(["init", "set", "--task", task]) == 0
    loaded = load_recipe(tmp_path / "recipe.toml", ())
    assert loaded.recipe.task == task
    assert loaded.recipe.options.get("classes", True)
    rows = files.read_json(Life(loaded).run(Silent(), "encode").folders["encode"] / "tokens.json")["splits"]
    assert sum(each["rows"] for each in rows.values()) == 80
    assert cli.main(["init", "set/train/down", "--task", task, "--force"]) == 0
    assert not load_recipe(tmp_path / "recipe.toml", ()).recipe.options.get("classes", False)


def test_what_the_files_are_not_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders(tmp_path / "set", 4)
    pairs = (("segmentation", "E281", 3), ("instruction", "E282", 3), ("painting", "E111", 2))
    for task, code, rc in pairs:
        assert cli.main(["init", "set", "--task", task]) == rc
        said = capsys.readouterr().err
        assert code in said
        assert task in said
    assert cli.main(["init", "nowhere", "--task", "image_generation"]) == 3
    assert "E202" in capsys.readouterr().err
    assert not (tmp_path / "recipe.toml").exists()


def test_a_table_of_no_classes_hides_no_folders(tmp_path: Path) -> None:
    folders(tmp_path / "raw", 4)
    names = [f"{kind}/{number:03d}.png,web" for kind in ("across", "down") for number in range(4)]
    (tmp_path / "raw" / "index.csv").write_text("\n".join(["file,source", *names]), "utf-8")
    for task in ("", DIFFUSION):
        written, rows = starter.recipe(tmp_path / "raw", Path("raw"), task)
        assert (f'task = "{task or "image_classification"}"' in written, rows) == (True, 8)
        assert ("classes = true" in written) == bool(task)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("before", "after"), [("true", "false"), ("false", "true")])
def test_a_base_may_have_known_other_classes(task: str, before: str, after: str, tmp_path: Path) -> None:
    """What fits is taken over, and the model opens again."""
    key = "options.classes={}".format
    base = project(tmp_path / "base", task, key(before), steps=2).run(Silent(), "pretrain").folders["pretrain"]
    life = project(tmp_path / "next", task, key(after), "train.lr=1e-9", steps=1, model=f'base = "{base}"')
    trained = life.loaded.recipe.trained
    made = Model.from_pretrained(life.run(Silent(), trained).folders[trained])
    assert made.task.labels == (("across", "down") if after == "true" else ())
    known, own = (each.net.state_dict() for each in (Model.from_pretrained(base), made))
    kept = [name for name in own if name in known and own[name].shape == known[name].shape]
    assert len(kept) >= len(own) - 2
    for name in kept:
        torch.testing.assert_close(own[name], known[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_a_rank_without_pictures_loses_nothing(task: str, lived: dict[str, dict[str, Path]]) -> None:
    learned = Model.from_pretrained(lived[task]["pretrain"])
    none = {"pixel_values": torch.zeros(0, 3, 12, 12, dtype=torch.uint8), "labels": torch.tensor([[-100]])}
    posed = learned.task.posed(none)
    assert len(posed["classes"]) == 0
    with torch.no_grad():
        assert float(learned.task.loss(learned.net, posed)["loss"]) == 0


def test_both_adversaries_see_the_class(lived: dict[str, dict[str, Path]]) -> None:
    net: Any = Model.from_pretrained(lived[GAN]["pretrain"]).net
    latent, one, other = torch.randn(2, 64, 1, 1), torch.tensor([0, 1]), torch.tensor([1, 1])
    made, changed = net.generator(latent, one), net.generator(latent, other)
    assert not torch.allclose(made[0], changed[0])
    assert torch.equal(made[1], changed[1])
    told, plain = net.discriminator(made, one), net.discriminator(made)
    assert not torch.allclose(told, plain)


def test_python_asks_as_the_command_does(lived: dict[str, dict[str, Path]]) -> None:
    ours, theirs = AutoModel.from_pretrained(lived[DIFFUSION]["pretrain"]), lived[DIFFUSION]["pretrain"]
    wish = {"count": 2, "label": "down", "guidance": 3.0}
    made = ours.predict(wish)
    assert made == ours.predict(json.dumps(wish)) == Model.from_pretrained(theirs).predict(json.dumps(wish))
