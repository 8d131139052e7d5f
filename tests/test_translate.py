"""Whole lives of tasks that write a text for a text: translations and summaries, given in two columns."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from danlu import BartForConditionalGeneration, Model, cli, files, tasks
from danlu.config import Serve
from danlu.data.loader import IGNORE
from danlu.data.starter import recipe as first_recipe
from danlu.errors import UserError
from danlu.explain import explain
from danlu.graph import Life, Silent
from danlu.modalities.text import Text
from danlu.proof import audit, gradients
from danlu.proof.twin import twins
from danlu.recipe import load_recipe
from danlu.serve.run import background
from danlu.stages.prove import prove
from danlu.tasks.task import Batch
from danlu.tasks.translation import Translation
from tests import tiny_task
from tests.models.stock import lift

FOLK = {"king": "König", "queen": "Königin", "fool": "Narr", "ghost": "Geist"}
DEEDS = {"sees": "sieht", "finds": "findet", "loses": "verliert"}
FORMS = {"t5": "T5ForConditionalGeneration", "bart": "BartForConditionalGeneration", "marian": "MarianMTModel"}
WISH = tiny_task.recipe(
    "translation", "jsonl", data='columns = { text = "en", target = "de" }', steps=150, batch_tokens=512
)
BRIEF = tiny_task.recipe("summarization", "jsonl", steps=2)
pytestmark = pytest.mark.usefixtures("steady")


def pairs(start: int, count: int) -> list[dict[str, Any]]:
    """Sentences and their translations, word by word, which never come twice."""
    made = []
    for number in range(start, start + count):
        names, verbs = list(FOLK), list(DEEDS)
        one, verb, other = names[number % 4], verbs[number // 4 % 3], names[number // 12 % 4]
        made.append({"en": f"The {one} {verb} a {other}, {number}.", "de": f"{FOLK[one]} {DEEDS[verb]} {FOLK[other]}"})
    return made


def project(folder: Path, recipe: str = WISH) -> Life:
    return tiny_task.project(folder, recipe, tiny_task.lines(pairs(0, 240)), tiny_task.lines(pairs(240, 40)))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("translated")).run(Silent()).folders)


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Each form, a little trained."""
    life = project(tmp_path_factory.mktemp(request.param), WISH.replace("steps = 150", "steps = 3"))
    recipe = life.loaded.path
    return request.param, Life(load_recipe(recipe, [f"model.arch={request.param}"])).run(Silent()).folders["pretrain"]


# --- a life ---


def test_it_learns_to_translate(lived: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    told = files.read_json(lived["evaluate"] / "metrics.json")
    assert told["models"]["base"]["chrf"] > told["models"]["copy"]["chrf"] + 30
    assert told["models"]["base"].keys() >= {"loss", "perplexity", "token_accuracy", "bleu", "chrf"}
    low, high = told["intervals"]["models"]["base"]["bleu"]
    assert low <= told["models"]["base"]["bleu"] <= high
    model, rows = Model.from_pretrained(lived["pretrain"]), pairs(240, 40)
    said = model.judge([{"text": row["en"]} for row in rows])
    assert sum(each["target"] == row["de"] for each, row in zip(said, rows, strict=True)) > 8
    assert cli.main(["predict", str(lived["pretrain"]), rows[0]["en"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == said[0]


def test_it_is_measured_on_other_data(
    lived: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.jsonl").write_text(tiny_task.lines(pairs(300, 20)), "utf-8")  # its columns are languages
    assert cli.main(["evaluate", str(lived["pretrain"]), str(tmp_path / "other.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chrf"] > 50


def test_it_is_served(lived: dict[str, Path]) -> None:
    model, rows = Model.from_pretrained(lived["pretrain"]), [{"text": row["en"]} for row in pairs(240, 3)]
    with background(model, "tiny", Serve(port=0)) as url:
        said = tiny_task.asked(url, {"model": "tiny", "text": [row["text"] for row in rows]})
    assert said["predictions"] == model.judge(rows)


def test_summaries_are_measured_by_what_they_share(tmp_path: Path) -> None:
    rows = [{"document": f"The king sees {n} ships. He is old.", "summary": f"{n} ships"} for n in range(60)]
    (tmp_path / "train.jsonl").write_text(tiny_task.lines(rows), "utf-8")
    written, _ = first_recipe(tmp_path / "train.jsonl", Path("train.jsonl"))
    assert 'task = "summarization"' in written
    columns = BRIEF.replace("[tokenizer]", 'columns = { text = "document", target = "summary" }\n[tokenizer]')
    folders = tiny_task.project(tmp_path, columns, tiny_task.lines(rows), "").run(Silent()).folders
    told = files.read_json(folders["evaluate"] / "metrics.json")["models"]
    assert told["base"].keys() >= {"rouge_1", "rouge_2", "rouge_l"}
    assert told["first"]["rouge_1"] == pytest.approx(100 * 2 * 2 / (5 + 2)), "two of five words, which are all of two"


# --- what is read and what is written ---


def batch_of(task: Any, rows: list[dict[str, str]]) -> Batch:
    made: Batch = task.posed(task.processor.collate([task.encode(row) for row in rows]))
    return made


ROWS = [{"text": row["en"], "target": row["de"]} for row in pairs(0, 5)]


def test_both_sides_of_a_row_are_told_apart(lived: dict[str, Path]) -> None:
    task = Model.from_pretrained(lived["pretrain"]).task
    words, end = task.processor, task.processor.end_id
    batch = batch_of(task, ROWS)
    for place, row in enumerate(ROWS):
        read, told = batch["segment_ids"][place] > 0, batch["decoder_segment_ids"][place] > 0
        wanted = [*words.encode(row["target"]), end]
        assert batch["input_ids"][place][read].tolist() == [*words.encode(row["text"]), end]
        assert batch["labels"][place][told].tolist() == wanted
        assert bool((batch["labels"][place][~told] == IGNORE).all())
        assert batch["decoder_input_ids"][place][told].tolist() == [words.pad_id, *wanted[:-1]]


def test_options_change_what_is_read_and_how_much_is_written(lived: dict[str, Path]) -> None:
    model = Model.from_pretrained(lived["pretrain"])
    kind = tasks.load("translation")
    words = model.processor
    asks = kind(words, (), 32, {"prefix": "say: "})
    assert asks.asking(ROWS[0]) == kind(words, (), 32).asking({"text": "say: " + ROWS[0]["text"]})
    short = model.for_task("translation", 1, (), {"longest": 2})
    asked = [{"text": ROWS[0]["text"]}]
    (said,), (whole,) = short.judge(asked), model.judge(asked)
    assert len(words.encode(said["target"])) == 2 < len(words.encode(whole["target"]))


def test_texts_that_are_too_long_keep_their_end(lived: dict[str, Path]) -> None:
    task = tasks.load("translation")(Model.from_pretrained(lived["pretrain"]).processor, (), 16)
    example = task.encode({"text": "a king " * 40, "target": "ein König " * 40})
    ids, end = example["input_ids"], task.processor.end_id
    assert example["parts"] == [0] * 16 + [1] * 16
    assert (ids[15], ids[31], ids.count(end)) == (end, end, 2)


def test_what_looks_like_an_end_in_a_text_is_none(lived: dict[str, Path]) -> None:
    words = Model.from_pretrained(lived["pretrain"]).processor
    name = next(name for name, index in words.control.items() if index == words.end_id)
    example = tasks.load("translation")(words).encode({"text": f"a {name} b", "target": f"{name}"})
    assert example["input_ids"].count(words.end_id) == 2


# --- the same elsewhere ---


def test_the_folder_opens_in_transformers_and_writes_the_same(
    form: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, folder = form
    lift(monkeypatch, name)
    ours, kind = Model.from_pretrained(folder), getattr(transformers, FORMS[name])
    theirs = kind.from_pretrained(folder).double().eval()
    ours.net.double()
    batch = batch_of(ours.task, ROWS)
    real = (batch["segment_ids"] > 0).long()
    with torch.no_grad():
        told = theirs(input_ids=batch["input_ids"], attention_mask=real, labels=batch["labels"])
    loss = ours.task.loss(ours.net, batch)["loss"] / ours.task.counts(batch)["loss"]
    assert float(loss.detach()) == pytest.approx(float(told.loss), abs=1e-9)
    sums = ours.task.measure(ours.net, batch)
    figures = ours.task.report({each: float(value) for each, value in sums.items()})
    assert figures["loss"] == pytest.approx(float(told.loss), abs=1e-9)
    (example,) = ours.task.asking(ROWS[0])
    made = theirs.generate(torch.tensor([example["input_ids"]]), do_sample=False, max_new_tokens=20)[0, 1:].tolist()
    end = ours.processor.end_id
    cut = made[: made.index(end)] if end in made else made
    short = ours.for_task("translation", 1, (), {"longest": 20})
    assert short.judge([{"text": ROWS[0]["text"]}]) == [{"target": ours.processor.decode(cut)}]


def test_what_is_written_is_explained(form: tuple[str, Path]) -> None:
    """Of each form: every token of it by the words that were read, the parts of which add up."""
    model = Model.from_pretrained(form[1])
    found = explain(model, {"text": ROWS[0]["text"]}, ROWS[0]["target"])
    assert len(found.each) == len(model.processor.encode(ROWS[0]["target"])) + 1
    assert abs(found.gap) <= 0.02 * abs(found.number - found.blank)
    assert sum(sum(parts) for _, _, parts in found.each) == pytest.approx(sum(found.scores["gradients"]), abs=1e-4)
    assert sum(found.scores["attention"]) == pytest.approx(1)


def test_a_folder_of_barts_frames_texts_as_bart_does(tmp_path: Path) -> None:
    grown = Tokenizer(tokenizers.models.BPE())
    grown.pre_tokenizer, grown.decoder = ByteLevel(add_prefix_space=False), tokenizers.decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>"]
    grown.train_from_iterator(
        [row["text"] + row["target"] for row in ROWS],
        tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=ByteLevel.alphabet()),
    )
    ids = {name: grown.token_to_id(name) for name in special}
    frame = TemplateProcessing(single="<s> $A </s>", special_tokens=[(name, ids[name]) for name in ("<s>", "</s>")])
    grown.post_processor = frame
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=grown, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(tmp_path)
    shape = transformers.BartConfig(
        vocab_size=grown.get_vocab_size(), d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=64,
        bos_token_id=ids["<s>"], pad_token_id=ids["<pad>"], eos_token_id=ids["</s>"],
        decoder_start_token_id=ids["</s>"], forced_eos_token_id=None,
    )  # fmt: skip
    transformers.BartForConditionalGeneration(shape).save_pretrained(tmp_path)
    model = BartForConditionalGeneration.from_pretrained(tmp_path)
    assert model.task_name == "summarization"
    batch = batch_of(model.task, ROWS[:1])
    labels = batch["labels"][0][batch["decoder_segment_ids"][0] > 0].tolist()
    assert (labels[0], labels[-1]) == (ids["<s>"], ids["</s>"])
    assert batch["decoder_input_ids"][0][0] == ids["</s>"]
    model.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text("utf-8"))
    assert again["decoder_start_token_id"] == ids["</s>"]
    history = model.fit(ROWS, steps=2, batch_tokens=64, precision="fp32", threads=1, quiet=True, lr=0.01)
    assert len(history["loss"]) == 2


# --- the proof ---


def test_a_recipe_is_certified(tmp_path: Path) -> None:
    certificate = prove(project(tmp_path).loaded, Silent())
    assert certificate.failed() == [], certificate.render()


@pytest.mark.parametrize("name", ["bart", "marian"])
def test_other_forms_keep_the_loss_rule_and_their_texts_apart(name: str, tmp_path: Path) -> None:
    recipe = project(tmp_path).loaded.path
    (twin,) = twins(Life(load_recipe(recipe, [f"model.arch={name}"])), tmp_path / "twin")
    for check in (*gradients.layouts(twin), gradients.splits(twin), audit.mask(twin), audit.attention(twin)):
        assert check.figure <= check.limit, check


def test_a_source_that_is_learned_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (twin,) = twins(project(tmp_path), tmp_path / "twin")
    assert audit.mask(twin).figure == 0.0
    real = Translation.posed

    def wrong(self: Any, batch: Batch) -> Batch:
        shifted = {**batch, "parts": batch["parts"].roll(-1, 1)}  # the end of what is read is written
        return real(self, shifted)

    monkeypatch.setattr(Translation, "posed", wrong)
    assert audit.mask(twin).figure > 0


# --- what is given ---


@pytest.mark.parametrize(
    ("name", "rows", "task", "columns"),
    [
        ("a.csv", "en,de\n" + "".join(f"the sentence {n},der Satz {n}\n" for n in range(40)), "translation",
         {"text": "en", "target": "de"}),
        ("a.tsv", "".join(f"This is {n}.\t这是第{n}个。\n" for n in range(40)), "translation",
         {"text": "1", "target": "2"}),
        ("a.jsonl", tiny_task.lines([{"id": n, "src": f"one {n}", "tgt": f"eins {n}"} for n in range(40)]),
         "translation", {"text": "src", "target": "tgt"}),
        ("a.jsonl", tiny_task.lines([{"body": f"long text {n}", "subject": f"short {n}"} for n in range(40)]),
         "summarization", {"text": "body", "target": "subject"}),
    ],
)  # fmt: skip
def test_raw_files_of_them_are_recognised(
    name: str, rows: str, task: str, columns: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(rows, "utf-8")
    written, _ = first_recipe(tmp_path / name, Path(name))
    (tmp_path / "recipe.toml").write_text(written, "utf-8")
    loaded = load_recipe(tmp_path / "recipe.toml").recipe
    assert (loaded.task, loaded.data.columns) == (task, columns)


def test_two_columns_of_one_language_are_not_taken_for_a_translation(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("one,two\n" + "".join(f"this {n},that {n}\n" for n in range(40)), "utf-8")
    assert "translation" not in first_recipe(tmp_path / "a.csv", Path("a.csv"))[0]


def test_all_that_is_written_for_one_text_stays_in_one_split(tmp_path: Path) -> None:
    rows = [{"text": f"one {n // 4}", "target": f"eins {n}"} for n in range(400)]
    recipe = WISH.replace('columns = { text = "en", target = "de" }', 'clean = ["normalize", "drop_empty"]')
    (tmp_path / "train.jsonl").write_text(tiny_task.lines(rows), "utf-8")
    written = recipe.replace('test = "test.jsonl"\n', "").replace("test = 0.0", "test = 0.3")
    (tmp_path / "recipe.toml").write_text(written, "utf-8")
    from danlu.data import shapes, store

    folder = Life(load_recipe(tmp_path / "recipe.toml")).run(Silent(), "prepare").folders["prepare"]
    texts = [{shapes.loaded(row)["text"] for row in store.read(folder / "rows", name)} for name in ("train", "test")]
    assert len(texts[1]) > 10
    assert not texts[0] & texts[1]


def test_a_pair_without_one_side_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [*pairs(0, 40), {"en": "Nothing.", "de": " "}, {"en": "", "de": "Nichts."}]
    life = tiny_task.project(tmp_path, WISH, tiny_task.lines(rows), "")
    told = files.read_json(life.run(Silent(), "prepare").folders["prepare"] / "funnel.json")
    assert (told["read"], sum(told["splits"].values())) == (42, 40)


@pytest.mark.parametrize(
    ("rows", "code"),
    [('{"en": "a", "fr": "b"}\n' * 3, "E201"), ('{"en": "a", "de": 3}\n{"en": "b", "de": "c"}\n', "E208")],
)
def test_bad_rows_are_named(rows: str, code: str, tmp_path: Path) -> None:
    assert tiny_task.refused(tiny_task.project(tmp_path, WISH, rows, ""), "encode").code == code


@pytest.mark.parametrize("arch", ["gpt", "bert"])
def test_a_form_that_writes_nothing_is_refused_at_once(arch: str, tmp_path: Path) -> None:
    recipe = project(tmp_path).loaded.path
    with pytest.raises(UserError, match="do not go together"):
        load_recipe(recipe, [f"model.arch={arch}"])


def test_a_model_of_spans_can_be_tuned_to_translate(lived: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(lived["pretrain"], tmp_path / "base")
    spans = Model.from_pretrained(tmp_path / "base").grown(
        Text.load(tmp_path / "base").with_control(tasks.load("span_denoising").markers), 1
    )
    spans.for_task("span_denoising", 1).save_pretrained(tmp_path / "spans")
    project(tmp_path)
    written = WISH.replace("[model]\ncontext = 32\ndepth = 1", '[model]\ncontext = 32\nbase = "spans"')
    written = written.replace("[tokenizer]\nvocab_size = 300\n", "").replace("steps = 150", "steps = 2")
    (tmp_path / "recipe.toml").write_text(written, "utf-8")
    folders = Life(load_recipe(tmp_path / "recipe.toml")).run(Silent()).folders
    assert Model.from_pretrained(folders["finetune"]).task_name == "translation"
