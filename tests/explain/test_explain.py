"""Explanations of every task: their parts add up, and are those of independent implementations."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from danlu import AutoModel, catalogue, models
from danlu.adapt.quantize import quantize
from danlu.api.explained import Explained
from danlu.errors import UserError
from danlu.explain import Explanation, deletion, explain
from danlu.explain.gradients import integrated
from danlu.explain.rollout import through
from danlu.model import Model
from danlu.models.architecture import build
from danlu.tasks.task import Task
from tests.api import bert
from tests.train.test_loss_rule import CONTEXT, fitting, network, row, task_of

pytestmark = pytest.mark.usefixtures("steady")
SENTENCE = "it is the ship , the queen is the king ."


def model_of(name: str) -> tuple[Model, dict[str, Any]]:
    """A model of a task in float64 with weights far from zero, and a row that is asked about."""
    task, net = task_of(name), network(torch.float64, "sdpa", name)
    shape = task.shaped(
        models.preset(catalogue.stated(name, "arch") or "qwen3", 400, CONTEXT, 1, **task.processor.sizes)
    )
    made = Model(net, shape, task)
    asked = fitting(task, row(2, 4, 3))
    hidden = {"masked_language_modeling": "[MASK]", "span_denoising": "<extra_id_0>"}
    masked = {"text": f"the quick {hidden[name]} fox"} if name in hidden else {}
    return made, {each: asked[each] for each in task.inputs if asked.get(each) is not None} | masked


# --- every task ---


@pytest.mark.parametrize("name", catalogue.names())
def test_the_parts_add_up_to_the_difference(name: str) -> None:
    """Completeness in float64: exact but for the rule's error where all is smooth, a hundredth where it has kinks."""
    model, asked = model_of(name)
    if type(model.task).answer is Task.answer:
        with pytest.raises(UserError, match="E609"):
            explain(model, asked)
        return
    found = explain(model, asked)
    parts, difference = found.scores["gradients"], found.number - found.blank
    assert len(parts) == len(found.words)
    assert sum(parts) - difference == pytest.approx(found.gap, abs=1e-12)
    close = {"image": 0.05, "tabular": 0.01}.get(name.split("_")[0], 1e-4)
    assert abs(found.gap) <= close * abs(difference)
    assert all(score == 0 for score, word in zip(parts, found.words, strict=True) if word.fixed)
    assert max(map(abs, parts)) > 1e-4
    assert sum(found.scores.get("attention", [1.0])) == pytest.approx(1)
    assert ("attention" in found.scores) == (not name.startswith(("tabular", "image")))
    shares = [share for curve in found.curves.values() for share in curve]
    assert "regression" in name or (min(shares) >= (-1 if model.embeds else 0) and max(shares) <= 1)
    assert found.left_out == 0
    assert [curve[0] for curve in found.curves.values()] == pytest.approx([found.share] * len(found.curves), abs=1e-9)
    assert np.ptp([curve[-1] for curve in found.curves.values()]) < 1e-9, "all is gone"
    assert json.loads(json.dumps(found.table()))["explained"] == found.name


@pytest.mark.parametrize("name", ["translation", "span_denoising"])
def test_each_token_that_is_written_rests_on_words_that_are_read(name: str) -> None:
    """What is explained is the loss of the text that is written, token by token; the encoder alone is read."""
    model, asked = model_of(name)
    wanted = {"translation": "lazy dog", "span_denoising": "<extra_id_0> lazy"}[name]
    found = explain(model, asked, wanted)
    (read,), told = model.task.asking(asked), model.task.named(wanted)
    ids, before = torch.tensor([told]), torch.tensor([[model.task.start_id, *told[:-1]]])
    batch = {"input_ids": torch.tensor([read["input_ids"]]), "decoder_input_ids": before, "labels": ids}
    losses = nn.functional.cross_entropy(model.net(batch)[0], ids[0], reduction="none").detach()
    assert found.number == pytest.approx(-float(losses.sum()), abs=1e-9)
    assert found.number == pytest.approx(-float(model.task.loss(model.net, batch)["loss"].detach()), abs=1e-5)
    assert [number for _, number, _ in found.each] == pytest.approx((-losses).tolist(), abs=1e-9)
    assert [token for token, _, _ in found.each] == model.processor.show(told)
    whole = np.sum([parts for _, _, parts in found.each], 0)
    assert whole == pytest.approx(np.array(found.scores["gradients"]), abs=1e-9), (
        "the parts of all are those of the sum"
    )
    assert len(found.table()["written"]) == len(told)
    said = explain(model, asked)
    assert said.name != found.name
    assert said.share > found.share, "the likeliest is likelier than another"
    assert "←" in "\n".join(Explained.of(said)._rests())
    assert "<th>" in Explained.of(said)._written()


@pytest.mark.parametrize("name", ["text_classification", "token_classification", "multi_label_classification"])
def test_another_answer_can_be_asked_for(name: str) -> None:
    model, asked = model_of(name)
    for label in model.task.labels:
        assert explain(model, asked, label).name.startswith(label)
    with pytest.raises(UserError, match="E610"):
        explain(model, asked, "no such label")


def test_a_row_of_a_linear_model_is_shared_out_by_its_weights() -> None:
    """In closed form: the part of x is w · (x - x'), at any number of points."""
    embed, weights = nn.Embedding(20, 6).double(), torch.linspace(-1, 1, 6, dtype=torch.float64)
    ids, nothing = torch.tensor([[3, 7, 1]]), torch.tensor([[0, 0, 0]])
    ends = embed(nothing).detach(), embed(ids).detach()

    def number(batch: dict[str, Tensor]) -> Tensor:
        return (embed(batch["input_ids"]) @ weights).sum(1)

    found = integrated(number, embed, lambda n: {"input_ids": ids.expand(n, -1)}, ends, 3)
    assert torch.allclose(found, ((ends[1] - ends[0]) @ weights)[0], atol=1e-12)


# --- beside transformers ---


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that transformers wrote, with weights far from zero."""
    return bert.classifier(tmp_path_factory.mktemp("explain") / "model")


@pytest.fixture(scope="module")
def ours(stock: Path) -> Explanation:
    model = Model.from_pretrained(stock)
    model.net.double()
    return explain(model, {"text": SENTENCE})


def _theirs(path: Path) -> tuple[Any, Tensor, Tensor]:
    """The model in float64, the ids, and the ids with masks."""
    model = transformers.BertForSequenceClassification.from_pretrained(path, attn_implementation="eager")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    ids = tokenizer(SENTENCE, return_tensors="pt")["input_ids"]
    masked = torch.full_like(ids, tokenizer.mask_token_id)
    masked[0, 0], masked[0, -1] = ids[0, 0], ids[0, -1]
    return model.double().eval(), ids, masked


def test_integrated_gradients_are_those_of_transformers_and_autograd(stock: Path, ours: Explanation) -> None:
    """Their network, a plain sum of 4,000 midpoints: no code of ours."""
    model, ids, masked = _theirs(stock)
    with torch.no_grad():
        end, start, logits = model.bert.embeddings(ids), model.bert.embeddings(masked), model(ids).logits[0]
    total, count = torch.zeros_like(end), 4000
    for at in range(0, count, 100):
        share = ((torch.arange(at, at + 100) + 0.5) / count)[:, None, None].double()
        x = (start + share * (end - start)).requires_grad_()
        pooled = model.bert.pooler(model.bert.encoder(x)[0])
        (slope,) = torch.autograd.grad(model.classifier(pooled)[:, logits.argmax()].sum(), x)
        total += slope.sum(0, keepdim=True) / count
    expected = ((end - start) * total).sum(-1)[0]
    assert ours.number == pytest.approx(float(logits.max()), abs=1e-9)
    assert len(ours.words) == ids.shape[1], "every word of the vocabulary is one token"
    assert np.abs(np.array(ours.scores["gradients"]) - expected.numpy()).max() < 1e-3 * float(expected.abs().max())


def test_rollout_is_that_of_the_attentions_of_transformers(stock: Path, ours: Explanation) -> None:
    """The answer is read at [CLS] alone, so its row is what flows there."""
    model, ids, _ = _theirs(stock)
    flow = np.eye(ids.shape[1])
    for layer in model(ids, output_attentions=True).attentions:
        mixed = layer[0].mean(0).detach().numpy() + np.eye(ids.shape[1])
        flow = np.matmul(mixed / mixed.sum(-1, keepdims=True), flow)
    assert np.abs(flow[0] - np.array(ours.scores["attention"])).max() < 1e-9


def test_rollout_of_one_layer_is_half_its_attention() -> None:
    share = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    assert through([share]).tolist() == [[1.0, 0.0], [0.125, 0.875]]


def test_how_alike_two_texts_are_is_shared_out_as_by_transformers_and_autograd(stock: Path) -> None:
    """The cosine of mean states; of each text the way from blank to its own words, the other as it is; their mean."""
    model = AutoModel.from_pretrained(stock, task="sentence_embedding")
    model.net.double()
    texts = (SENTENCE, "the ship is the queen")
    found = explain(model, dict(zip(("text", "positive"), texts, strict=True)))
    bert_, tokenizer = _bare(stock), transformers.AutoTokenizer.from_pretrained(stock)

    def vectors(x: Tensor) -> Tensor:
        return nn.functional.normalize(bert_.encoder(x)[0].mean(1), dim=-1)

    ends, starts = list[Tensor](), list[Tensor]()
    for each in texts:
        ids = tokenizer(each, return_tensors="pt")["input_ids"]
        masked = torch.full_like(ids, tokenizer.mask_token_id)
        masked[0, 0], masked[0, -1] = ids[0, 0], ids[0, -1]
        with torch.no_grad():
            ends.append(bert_.embeddings(ids))
            starts.append(bert_.embeddings(masked))
    parts, blanks = list[Tensor](), list[float]()
    for own, other in ((0, 1), (1, 0)):
        share = ((torch.arange(2000) + 0.5) / 2000)[:, None, None].double()
        x = (starts[own] + share * (ends[own] - starts[own])).requires_grad_()
        with torch.no_grad():
            beside = vectors(ends[other])
            blanks.append(float(vectors(starts[own]) @ beside.T))
        (slope,) = torch.autograd.grad((vectors(x) @ beside.T).sum(), x)
        parts.append(((ends[own] - starts[own])[0] * slope.mean(0)).sum(-1) / 2)
    with torch.no_grad():
        assert found.number == pytest.approx(float(vectors(ends[0]) @ vectors(ends[1]).T), abs=1e-9)
    assert found.blank == pytest.approx(np.mean(blanks), abs=1e-9)
    expected = torch.cat(parts).numpy()
    assert np.abs(np.array(found.scores["gradients"]) - expected).max() < 1e-3 * np.abs(expected).max()


def _bare(path: Path) -> Any:
    return transformers.BertModel.from_pretrained(path, attn_implementation="eager").double().eval()


# --- whether it is so ---


def test_words_that_decide_are_found_and_the_deletion_curve_says_so(tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(bert.folder(tmp_path / "model"), task="text_classification")
    rows = bert.rows(240)
    model.fit(rows, **bert.QUICK | {"steps": 80})
    asked, right = rows[:12], 0
    scores = []
    for each in asked:
        found = model.explain(each["text"])
        free = [at for at, word in enumerate(found.words) if not word.fixed]
        right += found.words[max(free, key=lambda at: found.scores["gradients"][at])].text.strip() == each["label"]
        scores.append(found.faithfulness["gradients"])
    assert right >= 11, f"the word that decides has the highest score in {right} of 12"
    assert np.mean(scores) > 0.1, scores


def test_a_curve_falls_sooner_when_what_matters_goes_first() -> None:
    def share(gone: list[list[int]]) -> list[float]:
        return [0.0 if 3 in each else 1.0 for each in gone]

    best, worst = ([3, *range(3)], [*range(3), 3])
    random, gone = deletion.at_random(share, range(4)), deletion.steps(4)
    assert gone == [0, 1, 2, 3, 4]
    assert deletion.faithfulness(deletion.curve(share, best), random, gone) > 0
    assert deletion.faithfulness(deletion.curve(share, worst), random, gone) < 0


def test_a_model_in_eight_bits_is_explained_as_the_one_it_was_made_of(stock: Path, ours: Explanation) -> None:
    """Few words, so that its kernel without gradients would be taken; bf16 between the layers."""
    model = Model.from_pretrained(stock)
    quantize(model.net)
    found = explain(model, {"text": SENTENCE}, ours.name)
    one, other = np.array(found.scores["gradients"]), np.array(ours.scores["gradients"])
    assert np.abs(one - other).max() < 0.1 * np.abs(other).max()
    assert explain(model, {"text": "ship"}, ours.name).scores["gradients"][1] != 0


# --- long texts ---

LONG = "the quick brown fox " * 40
JUDGED = ["text_classification", "multi_label_classification", "text_regression", "multiple_choice"]


@pytest.mark.parametrize("name", [*JUDGED, "relation_extraction", "sentence_embedding"])
def test_of_a_text_that_is_cut_what_the_answer_is_made_of_is_explained(name: str) -> None:
    model, asked = model_of(name)
    asked = {each: said for each, said in asked.items() if each != "text_pair"}
    asked |= {"text": f"{asked['text']} {LONG}"}
    found, said = explain(model, asked), model.judge([asked])[0]
    whole = type(model.task)(model.processor, model.task.labels, None, model.task.chosen).asking(asked)[0]
    read = model.task.asking(asked)[0]
    assert found.left_out == len(whole["input_ids"]) - len(read["input_ids"]) > 100
    places = [place for word in found.words for place in word.places]
    assert places == list(range(len(read["input_ids"])))
    share = said["cosine"] if model.embeds else said.get("score", max(said.get("scores", {"": 0}).values()))
    assert found.share == pytest.approx(share, abs=1e-6)


def test_what_a_text_goes_on_from_is_its_end() -> None:
    model, asked = model_of("language_modeling")
    found = explain(model, {"text": f"{LONG}{asked['text']}"})
    ids = model.processor.encode(f"{LONG}{asked['text']}")[1 - CONTEXT :]
    assert len(ids) == CONTEXT - 1 == sum(len(word.places) for word in found.words)
    with torch.no_grad():
        shares = model.net({"input_ids": torch.tensor([ids])})[0, -1].softmax(-1)
    assert found.share == pytest.approx(float(shares.max()), abs=1e-9)
    assert found.left_out == len(model.processor.encode(f"{LONG}{asked['text']}")) + 1 - len(ids)


@pytest.mark.parametrize("text", [f"{LONG} [MASK] jumps {LONG}", f"[MASK] {LONG}", f"{LONG} [MASK]"])
def test_what_is_around_a_mask_is_read(text: str) -> None:
    model, _ = model_of("masked_language_modeling")
    found = explain(model, {"text": text})
    assert sum(len(word.places) for word in found.words) == CONTEXT
    assert [word.text.strip() for word in found.words].count("[MASK]") == 1
    assert found.left_out > 0


def test_the_begin_of_a_text_is_looked_at_for_replaced_tokens() -> None:
    model, asked = model_of("replaced_token_detection")
    assert explain(model, asked | {"text": LONG}).left_out == 140 + 20 + 2 - CONTEXT


def test_of_tags_in_windows_the_surest_is_explained() -> None:
    model, asked = model_of("token_classification")
    found = explain(model, {"text": f"{asked['text']} " * 8})
    assert len(found.words) <= CONTEXT and found.left_out == 0
    surest = max(each["score"] for each in model.judge([{"text": f"{asked['text']} " * 8}])[0]["entities"])
    assert found.share >= surest - 1e-9


@pytest.mark.parametrize("labels", [("answer",), ("answer", "no_answer")])
def test_of_windows_the_answer_that_is_given_is_explained(labels: tuple[str, ...]) -> None:
    model, asked = model_of("reading_comprehension")
    model.net, opening = copy.deepcopy(model.net), model.processor.opening
    model.task.labels, said, words = labels, set(), asked["context"].split()
    for at in range(24):
        drawn = np.random.default_rng(at)
        with torch.no_grad():  # the more, the likelier there is no answer
            model.net.embed.tokens.weight[opening] += 0.1 * model.net.head.output.weight.sum(0)
        context = " ".join(drawn.choice(words, int(drawn.integers(5, 60))))
        given = {"question": str(drawn.choice(words)), "context": context}
        answer, found = model.judge([given])[0], explain(model, given)
        assert "".join(found.name.split()) == ("".join(answer["text"].split()) or "no_answer")
        assert found.share == pytest.approx(answer["score"], abs=1e-6)
        said.add(answer["text"])
    assert len(said) > 4 and ("" in said) == (len(labels) == 2), said


# --- bad input ---


@pytest.mark.parametrize("name", ["text_classification", "language_modeling", "token_classification"])
def test_what_says_nothing_is_refused(name: str) -> None:
    model, _ = model_of(name)
    with pytest.raises(UserError, match="E611"):
        explain(model, {"text": ""})


def test_the_masks_of_a_long_text_must_be_read_at_once() -> None:
    model, _ = model_of("masked_language_modeling")
    with pytest.raises(UserError, match="E612"):
        explain(model, {"text": f"[MASK] {LONG} [MASK]"})


def test_one_text_has_no_likeness() -> None:
    model, asked = model_of("sentence_embedding")
    with pytest.raises(UserError, match="E613"):
        explain(model, {"text": asked["text"]})


def test_a_model_without_words_is_refused(tmp_path: Path) -> None:
    model, asked = model_of("text_classification")
    model.net = nn.Module()
    model.net.embed = nn.Conv2d(1, 1, 1)
    with pytest.raises(UserError, match="E609"):
        explain(model, asked)


@pytest.mark.parametrize("arch", ["t5", "bart", "marian"])
def test_what_reads_one_text_and_writes_another_is_refused(arch: str) -> None:
    """What is written has many tokens, and no one number behind it: one line, and no traceback."""
    task = task_of("language_modeling")
    shape = models.preset(arch, task.processor.vocab_size, CONTEXT, 1)
    model = Model(build(shape, torch.Generator().manual_seed(1)), shape, task)
    with pytest.raises(UserError, match="E609"):
        explain(model, {"text": "the quick fox"})
    with pytest.raises(UserError, match="E348"):
        model.predict("the quick fox")
