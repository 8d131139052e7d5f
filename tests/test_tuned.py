"""A base that learned words, tuned to label texts by every method: learned, resumed, saved, opened, served."""

import json
import shutil
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu import Model, files
from danlu.config import Serve
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from danlu.serve.run import background
from danlu.train.session import Interrupted
from tests.adapt.forms import METHODS
from tests.faults.cold import log
from tests.test_classify import LABELS, rows

WORDS = """
task = "masked_language_modeling"
seed = 7
[data]
path = "train.csv"
columns = { text = "text" }
split = { valid = 0.1, test = 0.0 }
[tokenizer]
vocab_size = 300
[model]
depth = 2
width = 64
context = 32
[train]
steps = 2
batch_tokens = 256
precision = "fp32"
attention = "sdpa"
[system]
threads = 1
"""
LABELLED = """
task = "text_classification"
seed = 7
[data]
path = "few.csv"
test = "test.csv"
split = { valid = 0.0, test = 0.0 }
[model]
base = "words"
context = 32
[finetune]
tune = "TUNE"
[train]
steps = 40
lr = LR
dropout = 0.0
batch_tokens = 256
precision = "fp32"
attention = "sdpa"
save_every = 10
[system]
threads = 1
"""
RATES = {"full": 0.001, "last-1": 0.001, "adapter": 0.003, "prefix": 0.1, "bitfit": 0.03, "head": 0.02}
TEXTS = [f"The old fool keeps a small book. It is the {label}." for label in LABELS]

pytestmark = pytest.mark.usefixtures("steady")


def labelled(tune: str) -> str:
    return LABELLED.replace("TUNE", tune).replace("LR", str(RATES.get(tune, 0.005)))


def project(folder: Path, name: str, recipe: str) -> Life:
    (folder / "train.csv").write_text(rows(0, 240), "utf-8")
    (folder / "few.csv").write_text(rows(0, 12), "utf-8")
    (folder / "test.csv").write_text(rows(240, 60), "utf-8")
    (folder / name).write_text(recipe, "utf-8")
    return Life(load_recipe(folder / name, ()))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and a model of words in it."""
    folder = tmp_path_factory.mktemp("tuned")
    made = project(folder, "words.toml", WORDS).run(Silent(), "pretrain")
    shutil.copytree(made.folders["pretrain"], folder / "words")
    return folder


def test_what_has_read_stands_beside_a_bag_of_words_too(tmp_path: Path) -> None:
    """In one recipe the tuned model has rows of its own; the simple model of those stands beside it."""
    tuning = '[finetune]\ntask = "text_classification"\ndata = "few.csv"\ntest = "test.csv"\nsteps = 2\n'
    tuning += "split = { valid = 0.0, test = 0.0 }\n"
    made = project(tmp_path, "both.toml", WORDS.replace("[train]", "[pretrain]") + tuning).run(Silent())
    told = files.read_json(made.folders["evaluate"] / "metrics.json")
    assert list(told["answers"]) == ["bag", "tuned"]
    assert 0 < told["answers"]["bag"]["accuracy"] <= 1
    assert [(each["first"], each["second"]) for each in told["comparisons"]] == [("bag", "tuned")]


class Stop(Silent):
    """Asks the training to leave at a step."""

    def __init__(self, at: int) -> None:
        self.at, self.lines = at, []

    def progress(self, done: float, total: float, note: str) -> None:
        if done == self.at:
            signal.raise_signal(signal.SIGTERM)

    def line(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("tune", METHODS)
def test_a_base_is_tuned_by_every_method(tune: str, base: Path) -> None:
    made = project(base, f"{tune}.toml", labelled(tune))
    folder = made.run(Silent()).folders["finetune"]
    losses = [entry["loss"] for entry in log(folder / "metrics.jsonl") if "loss" in entry]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), "a dozen rows can be learned by heart"

    model = Model.from_pretrained(folder)
    said = model.judge([{"text": text} for text in TEXTS])
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"] == "danlu") == (tune in ("prefix", "adapter"))
    with background(model, "tiny", Serve(port=0)) as url:
        body = json.dumps({"text": TEXTS}).encode()
        asked = urllib.request.Request(f"{url}/predict", body, {"content-type": "application/json"})
        with urllib.request.urlopen(asked) as reply:
            served = json.load(reply)["predictions"]
    assert [each["label"] for each in served] == [each["label"] for each in said]
    model.save_pretrained(base / f"{tune}-again")
    again = Model.from_pretrained(base / f"{tune}-again")
    batch = model.processor.collate([model.task.encode({"text": text, "label": None}) for text in TEXTS])
    with torch.no_grad():
        assert again.net(batch).equal(model.net(batch))


@pytest.mark.parametrize("tune", METHODS)
def test_stopped_and_run_again_it_ends_with_the_same_weights(tune: str, base: Path, tmp_path: Path) -> None:
    recipe = labelled(tune).replace("steps = 40", "steps = 12").replace("save_every = 10", "save_every = 3")
    straight = project(base, "straight.toml", recipe).run(Silent(), "finetune").folders["finetune"]
    other = tmp_path / "other"
    other.mkdir()
    shutil.copytree(base / "words", other / "words")
    watch: Any = Stop(7)
    with pytest.raises(Interrupted):
        project(other, "recipe.toml", recipe).run(watch, "finetune")
    assert any("parameters are trained" in line for line in watch.lines)
    resumed = project(other, "recipe.toml", recipe).run(Silent(), "finetune").folders["finetune"]
    assert resumed.name == straight.name
    assert files.sha256(resumed / "model.safetensors") == files.sha256(straight / "model.safetensors")


def test_the_recipe_beside_what_adapters_learned_trains_the_same_weights_anew(base: Path) -> None:
    """Also the tokens of its steps, which had followed from the epochs."""
    recipe = labelled("lora").replace("steps = 40", "epochs = 2.0").replace("batch_tokens = 256\n", "")
    made = project(base, "pinned.toml", recipe).run(Silent(), "finetune").folders["finetune"]
    again = Life(load_recipe(made / "danlu.toml", ["system.runs=elsewhere"])).run(Silent(), "finetune")
    assert again.folders["finetune"].parent != made.parent
    assert files.sha256(again.folders["finetune"] / "model.safetensors") == files.sha256(made / "model.safetensors")


@pytest.mark.parametrize("tune", ["lora", "dora", "qlora"])
def test_the_adapters_alone_beside_the_base_are_the_model(tune: str, base: Path) -> None:
    recipe = labelled(f'{tune}"\nkeep_adapters = true\n#').replace("steps = 40", "steps = 5")
    folder = project(base, f"kept-{tune}.toml", recipe).run(Silent(), "finetune").folders["finetune"]
    whole, apart = Model.from_pretrained(folder), Model.from_pretrained(folder / "adapters")
    assert apart.task.labels == whole.task.labels == tuple(LABELS)
    batch = whole.processor.collate([whole.task.encode({"text": text, "label": None}) for text in TEXTS])
    with torch.no_grad():
        difference = (apart.net(batch) - whole.net(batch)).abs().max()
    assert difference < (0.2 if tune == "qlora" else 1e-5), "a base of 4 bits is rounded, the one that is named is not"
    size = [sum(file.stat().st_size for file in each.glob("*.safetensors")) for each in (folder / "adapters", folder)]
    assert size[0] < 0.5 * size[1]


def test_what_peft_has_no_form_for_is_said_before_training(base: Path) -> None:
    with pytest.raises(UserError) as caught:
        project(base, "kept.toml", labelled('adapter"\nkeep_adapters = true\n#'))
    assert caught.value.code == "E331"


def test_rows_are_said_once(base: Path) -> None:
    with pytest.raises(UserError, match=r"finetune\.data"):
        project(base, "twice.toml", labelled('lora"\ndata = "train.csv'))
