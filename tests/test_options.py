"""The options of tasks: each changes what is learned, and what is no option is refused with its place."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu import catalogue, tasks
from danlu.artifact import Lineage
from danlu.config.options import stated
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.modalities.text import Text
from danlu.model import Model
from danlu.randomness import generator
from danlu.recipe import load_recipe
from tests.tiny_life import PLAIN, life, project, sentences

CASES: dict[str, dict[str, Any]] = {  # another value for each option
    "image_classification": {
        "size": 8,
        "crop": 2,
        "flip": True,
        "colour": 0.3,
        "randaugment": 2,
        "magnitude": 20,
        "erase": 0.5,
        "mixup": 0.5,
        "cutmix": 0.5,
        "grow": 0.5,
    },  # test_pictures.py tries them
    "segmentation": {
        "size": 8,
        "crop": 2,
        "flip": True,
        "zoom": 0.5,
        "colour": 0.3,
        "dice": 1.0,
        "balance": 0.5,
    },  # test_masks.py does
    "object_detection": {
        "size": 8,
        "most": 1,
        "crop": 2,
        "flip": True,
        "zoom": 0.5,
        "colour": 0.3,
        "threshold": 0.9,
        "overlap": 0.1,
    },  # test_boxes.py tries them
    "adversarial_image_generation": {"size": 8, "classes": True, "latent": 8},  # test_generation.py tries them
    "image_generation": {
        "size": 8,
        "classes": True,
        "schedule": "linear",
        "levels": 100,
        "steps": 10,
        "guidance": 1.0,
    },  # and these
    "masked_image_modeling": {
        "share": 0.5,
        "decoder": 1,
        "target": "picture",
        "size": 8,
        "crop": 2,
        "flip": True,
    },  # test_masked_pictures.py tries them
    "masked_language_modeling": {"share": 0.4, "hide": "words", "pairs": "next"},
    "multi_label_classification": {"threshold": 0.2},
    "reading_comprehension": {"overlap": 0.8, "longest": 1},
    "relation_extraction": {"around": 1, "hide": 0.3},  # test_relate.py tries the first
    "replaced_token_detection": {"share": 0.4, "hide": "spans", "generator": 1.0, "weight": 5.0},
    "sentence_embedding": {"pool": "cls", "temperature": 0.5},  # test_embed.py tries them
    "span_denoising": {"share": 0.4, "span": 1.5},
    "summarization": {"prefix": "sum: ", "longest": 2},  # the same as of translation
    "text_classification": {"hide": 0.3},
    "translation": {"prefix": "say: ", "longest": 2},  # test_translate.py tries them
}
MASKED = PLAIN.replace("language_modeling", "masked_language_modeling").replace(
    "vocab_size = 300", 'type = "wordpiece"\nvocab_size = 200'
)

pytestmark = pytest.mark.usefixtures("steady")


def test_every_option_of_every_task_has_a_case() -> None:
    assert {task: set(stated(task)) for task in catalogue.names() if stated(task)} == {
        task: set(cases) for task, cases in CASES.items()
    }


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose rows hold several sentences each."""
    recipe = project(tmp_path_factory.mktemp("options") / "tiny", MASKED)
    every = sentences(300)
    rows = [{"text": " ".join(every[at : at + 4])} for at in range(0, 300, 4)]
    (recipe.parent / "texts" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return recipe


def trained(recipe: Path, *overrides: str) -> tuple[str, Model]:
    folder = life(recipe, *overrides).run(Silent(), "pretrain").folders["pretrain"]
    return Lineage.read(folder).output_hash, Model.from_pretrained(folder)


OF_PRETRAINING = [
    (task, option)
    for task in ("masked_language_modeling", "replaced_token_detection", "span_denoising")
    for option in CASES[task]
]


@pytest.mark.parametrize(("task", "option"), OF_PRETRAINING)
def test_every_option_of_masking_changes_the_weights(task: str, option: str, masked: Path) -> None:
    value, wide = CASES[task][option], (f"task={task}", "model.width=128")
    (before, plain), (after, model) = trained(masked, *wide), trained(masked, *wide, f"options.{option}={value}")
    assert before != after
    assert model.task.chosen == plain.task.chosen | {option: value}


def test_hiding_tokens_changes_the_weights_of_a_classifier(tmp_path: Path) -> None:
    recipe = project(tmp_path / "tiny", MASKED.replace("masked_language_modeling", "text_classification"))
    rows = [{"text": text, "label": "river" if "river" in text else "none"} for text in sentences(300)]
    (recipe.parent / "texts" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    hide = CASES["text_classification"]["hide"]
    (before, _), (after, model) = trained(recipe), trained(recipe, f"options.hide={hide}")
    assert before != after
    assert model.task.chosen == {"hide": hide}


def test_a_model_learned_beside_pairs_keeps_its_pooler_for_classes(masked: Path) -> None:
    _, model = trained(masked, "options.pairs=next")
    tuned = model.for_task("text_classification", 1, ["bad", "good"])
    words = model.for_task("masked_language_modeling", 1)
    assert tuned.net.head.dense.weight.equal(model.net.head.label.dense.weight)
    assert tuned.net.head.output.weight.shape == (2, 64)
    assert tuned.for_task("masked_language_modeling", 1).architecture.head == words.architecture.head
    assert words.net.head.dense.weight.equal(model.net.head.vocabulary.dense.weight)


@pytest.mark.parametrize("task", [task for task, cases in CASES.items() if cases.get("hide") == 0.3])
def test_training_alone_hides_tokens_and_never_those_that_control(task: str) -> None:
    text = Text.fit(sentences(60), type="wordpiece", vocab_size=200)
    kind = tasks.load(task)
    text = text.with_control(kind.markers)
    row = {"text": "The <e1>king</e1> sees a <e2>queen</e2>, " + " ".join(sentences(9)), "label": "a"}
    plain, hides = (kind(text, ["a"], 256, options) for options in ({}, {"hide": 0.3}))
    batch = text.collate([plain.encode(row)])
    seen = hides.corrupt(batch, generator(1, "corrupt"))["input_ids"]
    changed = seen != batch["input_ids"]
    assert 0.1 < float(changed.float().mean()) < 0.5
    assert set(seen[changed].tolist()) == {text.mask_id}
    assert not set(batch["input_ids"][changed].tolist()) & set(text.control.values())
    assert plain.corrupt(batch, generator(1, "corrupt"))["input_ids"].equal(batch["input_ids"])
    assert hides.posed(batch)["input_ids"].equal(batch["input_ids"])


def test_the_threshold_decides_which_labels_are_said() -> None:
    text = Text.fit(sentences(60), type="wordpiece", vocab_size=200)
    kind, logits = tasks.load("multi_label_classification"), torch.tensor([[2.0, -1.0, -3.0]])
    said = [
        kind(text, ["a", "b", "c"], 32, options).predict(lambda batch: logits, {})[0]["labels"]
        for options in ({}, CASES["multi_label_classification"])
    ]
    assert said == [["a"], ["a", "b"]]


def test_options_of_reading_change_the_windows_and_the_answers() -> None:
    text = Text.fit(sentences(100), type="wordpiece", vocab_size=200)
    row = {"question": "who", "context": " ".join(sentences(12)), "answers": []}
    kind, other = tasks.load("reading_comprehension"), CASES["reading_comprehension"]
    plain, denser, shorter = (
        kind(text, ["answer"], 32, options)
        for options in ({}, {"overlap": other["overlap"]}, {"longest": other["longest"]})
    )
    assert len(denser.windows(row)) > len(plain.windows(row))
    shares = [{"shares": torch.zeros(1 + stop - start, 2)} for start, stop in plain._cuts(plain._read(row))]
    lengths = [
        max(len(each["text"].split()) for each in task.joined(row, shares)["others"]) for task in (plain, shorter)
    ]
    assert lengths[0] > lengths[1] == 1


def test_an_option_that_the_task_lacks_is_named_with_its_place(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    start = 'task = "masked_language_modeling"\n[data]\npath = "x"\n[options]\n'
    for line, code, said in [
        ("shar = 0.2", "E102", "share"),
        ("share = 2.0", "E104", "0.9"),
        ('share = "x"', "E104", "number"),
        ('hide = "all"', "E104", "spans"),
    ]:
        recipe.write_text(start + line + "\n", "utf-8")
        with pytest.raises(UserError) as refused:
            load_recipe(recipe)
        assert refused.value.code == code
        assert "recipe.toml:5:1" in str(refused.value)
        assert said in str(refused.value)


def test_options_of_the_tuned_task_reach_its_stages(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'task = "language_modeling"\n[data]\npath = "x"\n[finetune]\ndata = "y"\ntask = "masked_language_modeling"\n'
        "[finetune.options]\nshare = 0.3\n"
    )
    nodes = {node.name: node.config for node in life(recipe).nodes}
    assert nodes["finetune"]["options"]["share"] == nodes["encode_finetune"]["options"]["share"] == 0.3
    assert "options" not in nodes["encode"]
    with pytest.raises(UserError, match="sharre"):
        load_recipe(recipe, ["finetune.options.sharre=0.3"])
    with pytest.raises(UserError, match="share"):
        load_recipe(recipe, ["options.share=0.3"])
