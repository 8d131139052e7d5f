"""Filling spans, from raw text to a served model: what is hidden, what is learned, saved, opened elsewhere, asked."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from danlu import files
from danlu.config import Serve
from danlu.data.columns import Columns
from danlu.data.loader import IGNORE, Loader
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.modalities.text import Text
from danlu.model import Model
from danlu.nn import hiding
from danlu.proof import audit
from danlu.proof.twin import twins
from danlu.randomness import generator
from danlu.recipe import load_recipe
from danlu.serve.run import background
from danlu.stages.prove import prove
from danlu.tasks.span_denoising import SpanDenoising
from danlu.tasks.task import Batch
from danlu.train.plan import Plan
from tests.models.stock import lift
from tests.tiny_life import RECIPE, life, project, sentences

SPANS = (
    RECIPE.replace("language_modeling", "span_denoising")
    .replace("context = 32", "context = 64")
    .replace("ngram = 2\n", "")
)
pytestmark = pytest.mark.usefixtures("steady")


@pytest.fixture(scope="module")
def text() -> Text:
    return Text.fit(sentences(100), vocab_size=300).with_control(SpanDenoising.markers)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("spans") / "tiny", SPANS)


@pytest.fixture(scope="module")
def trained(recipe: Path) -> Path:
    """The folder of a model that learned a little."""
    return life(recipe, "train.steps=40").run(Silent(), "pretrain").folders["pretrain"]


# --- what is hidden ---


class Operations(TorchDispatchMode):
    """Counts what torch is asked to do, and the elements that this makes."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.made = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.asked += 1
        self.made += sum(
            each.numel() for each in (found if isinstance(found, tuple) else (found,)) if hasattr(each, "numel")
        )
        return found


def work(text: Text, rows: int) -> Operations:
    """What hiding spans of so many packed rows takes."""
    task, (plain, _) = SpanDenoising(text, context=64), packed(text, rows)
    task.corrupt(plain, generator(7, "corrupt"))  # tables are made once
    with Operations() as counted:
        task.corrupt(plain, generator(7, "corrupt"))
    return counted


def test_hiding_spans_is_few_operations_however_many_texts_there_are(text: Text) -> None:
    """A batch is made while the network waits: nothing may be done text by text, or for all pairs of tokens."""
    few, many = work(text, 4), work(text, 32)
    assert few.asked <= 210 and many.asked == few.asked
    assert many.made <= 130 * 32 * packed(text, 32)[0]["input_ids"].shape[1]


def packed(text: Text, rows: int = 5) -> tuple[Batch, list[list[list[int]]]]:
    """Several texts in each row, and their tokens."""
    every = [[*text.encode(each), text.end_id] for each in sentences(3 * rows)]
    made = [every[at : at + 3] for at in range(0, len(every), 3)]
    length = max(sum(map(len, row)) for row in made) + 3
    batch = {name: torch.zeros(rows, length, dtype=torch.long) for name in ("input_ids", "segment_ids")}
    for index, row in enumerate(made):
        ids = [token for each in row for token in each]
        batch["input_ids"][index, : len(ids)] = torch.tensor(ids)
        numbers = [number for number, each in enumerate(row, 1) for _ in each]
        batch["segment_ids"][index, : len(ids)] = torch.tensor(numbers)
    return batch, made


def texts(batch: Batch) -> Iterator[tuple[int, int, list[int], list[int], list[int]]]:
    """Row, number, what is read, what stands before each label, and the labels, of each text of a batch."""
    for row in range(len(batch["input_ids"])):
        for number in range(1, int(batch["segment_ids"][row].max()) + 1):
            read, write = batch["segment_ids"][row] == number, batch["decoder_segment_ids"][row] == number
            before, labels = batch["decoder_input_ids"][row][write], batch["labels"][row][write]
            yield row, number - 1, batch["input_ids"][row][read].tolist(), before.tolist(), labels.tolist()


def corrupted(tokens: list[int], hidden: list[bool], sentinels: list[int], end: int) -> tuple[list[int], list[int]]:
    """Figure 2 of 1910.10683, token by token: what is read and what is written, where these tokens are hidden."""
    read: list[int] = []
    written: list[int] = []
    used = 0
    for place, token in enumerate(tokens):
        if not hidden[place]:
            read.append(token)
            continue
        if place == 0 or not hidden[place - 1]:
            read.append(sentinels[used])
            written.append(sentinels[used])
            used += 1
        written.append(token)
    return read, [*written, sentinels[used], end]


def found(read: list[int], labels: list[int], sentinels: list[int]) -> list[bool]:
    """Which tokens were hidden, going by the lengths of what stands behind each sentinel."""
    behind = dict.fromkeys(sentinels, 0)
    last = -1
    for token in labels:
        last = token if token in behind else last
        behind[last] += token not in behind
    return [hidden for token in read for hidden in ([True] * behind[token] if token in behind else [False])]


@pytest.mark.parametrize("options", [{}, {"share": 0.5, "span": 1.5}, {"share": 0.3, "span": 8.0}])
def test_what_is_read_and_written_is_that_of_the_paper(options: dict[str, float], text: Text) -> None:
    task = SpanDenoising(text, context=64, options=options)
    sentinels = [text.control[f"<extra_id_{number}>"] for number in range(100)]
    share, mean = task.chosen["share"], task.chosen["span"]
    plain, rows = packed(text)
    seen = set()
    for look in range(6):
        batch = task.corrupt(dict(plain), generator(1, "corrupt", look))
        for row, number, read, before, labels in texts(batch):
            tokens = rows[row][number]
            hidden = found(read, labels, sentinels)
            assert (read, labels) == corrupted(tokens, hidden, sentinels, text.end_id)
            assert before == [text.pad_id, *labels[:-1]]
            size, spans = len(tokens) - 1, sum(kind for kind, _ in groupby(hidden))
            assert not hidden[-1], "the end of a text is never hidden"
            assert sum(hidden) == max(1, round(size * share))
            assert spans == min(max(1, round(sum(hidden) / mean)), size - sum(hidden) + 1)
            seen.add((row, number, tuple(hidden)))
        again = task.corrupt(dict(plain), generator(1, "corrupt", look))
        assert all(batch[name].equal(again[name]) for name in batch)
    assert len(seen) > 60, "every look hides others"


def test_every_place_is_hidden_as_often(text: Text) -> None:
    """But the first and the last tokens, beside which there is less room: as an enumeration of all ways has it."""
    free = torch.ones(4000, 12, dtype=torch.bool)
    hidden = hiding.few_spans(free, free.long(), 0.34, 2.0, 99, generator(1, "x"))
    ways = [
        way for number in range(1 << 12)
        if sum(way := [bool(number >> place & 1) for place in range(12)]) == 4
        and sum(kind for kind, _ in groupby(way)) == 2
    ]  # fmt: skip
    rows, counts = hidden.unique(dim=0, return_counts=True)
    assert {tuple(row) for row in rows.tolist()} == set(map(tuple, ways))
    expected = len(free) / len(ways)
    assert float(((counts - expected) ** 2 / expected).sum()) < len(ways) + 4 * (2 * len(ways)) ** 0.5  # chi squared


def test_a_text_of_one_token_and_no_text_hide_nothing(text: Text) -> None:
    task = SpanDenoising(text)
    ids = torch.tensor([[text.encode("a")[0], text.end_id, text.end_id, 0]])
    batch = task.corrupt({"input_ids": ids, "segment_ids": torch.tensor([[1, 1, 2, 0]])}, generator(1, "x"))
    assert [(read, labels[1:]) for *_, read, _, labels in texts(batch)] == [
        (ids[0, :2].tolist(), [text.end_id]), ([text.end_id], [text.end_id])
    ]  # fmt: skip
    nothing = task.corrupt({"input_ids": ids, "segment_ids": torch.zeros_like(ids)}, generator(1, "x"))
    assert not nothing["segment_ids"].any() and bool((nothing["labels"] == IGNORE).all())


def test_never_more_spans_than_sentinels(text: Text) -> None:
    task = SpanDenoising(text, options={"share": 0.5, "span": 1.0})
    ids = torch.full((1, 900), text.encode("a")[0])
    batch = task.corrupt({"input_ids": ids, "segment_ids": torch.ones_like(ids)}, generator(1, "x"))
    last = text.control["<extra_id_99>"]
    assert int((batch["input_ids"] == text.control["<extra_id_98>"]).sum()) == 1
    assert int((batch["input_ids"] == last).sum()) == 0 and int((batch["labels"] == last).sum()) == 1


# --- the folder elsewhere ---


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the norms of transformers compute in float64."""
    lift(monkeypatch, "t5")


def opened(folder: Path) -> tuple[Model, Any]:
    ours, theirs = Model.from_pretrained(folder), transformers.T5ForConditionalGeneration.from_pretrained(folder)
    ours.net.double()
    return ours, theirs.double().eval()


def batch_of(model: Model, folder: Path) -> Batch:
    """Sentences, each in a row of its own, with spans hidden."""
    rows = [model.task.encode({"text": each}) for each in sentences(6)]
    return model.task.posed(model.processor.collate(rows))


@pytest.mark.usefixtures("wide")
def test_the_folder_opens_in_transformers_with_equal_logits_and_loss(trained: Path) -> None:
    ours, theirs = opened(trained)
    assert json.loads((trained / "config.json").read_text())["feed_forward_proj"] == "gated-gelu"
    batch = batch_of(ours, trained)
    read, written = batch["segment_ids"], batch["decoder_segment_ids"] > 0
    with torch.no_grad():
        told = theirs(input_ids=batch["input_ids"], attention_mask=read, labels=batch["labels"])
        logits = ours.net(batch)
    assert float((logits - told.logits)[written].abs().max()) <= 1e-8
    loss = ours.task.loss(ours.net, batch)["loss"] / ours.task.counts(batch)["loss"]
    assert float(loss.detach()) == pytest.approx(float(told.loss), abs=1e-10)
    sums = ours.task.measure(ours.net, batch)
    assert ours.task.report({n: float(v) for n, v in sums.items()})["loss"] == pytest.approx(float(told.loss), abs=1e-9)
    words = (batch["labels"] != IGNORE) & ~torch.isin(batch["labels"], ours.task._special)
    among = told.logits[words].index_fill(1, ours.task._special, -torch.inf)  # no sentinel, nor the end of a text
    each = torch.nn.functional.cross_entropy(among, batch["labels"][words])
    figures = ours.task.report({n: float(v) for n, v in sums.items()})
    assert figures["hidden_loss"] == pytest.approx(float(each), abs=1e-9)
    hits = (among.argmax(-1) == batch["labels"][words]).float().mean()
    assert figures["token_accuracy"] == pytest.approx(float(hits))


@pytest.mark.usefixtures("wide")
def test_the_greedy_fill_is_that_of_transformers(trained: Path) -> None:
    ours, theirs = opened(trained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained)
    asked = ["The old <extra_id_0> sees a tall<extra_id_1> book, 7.", "<extra_id_0> queen <extra_id_1>."]
    for row, said in zip(asked, ours.judge([{"text": each} for each in asked]), strict=True):
        (example,) = ours.task.asking({"text": row})
        made = theirs.generate(torch.tensor([example["input_ids"]]), do_sample=False, max_new_tokens=64)[0, 1:]
        names = [tokenizer.convert_ids_to_tokens(int(each)) for each in made]
        spans: dict[str, list[int]] = {}
        for name, token in zip(names, made.tolist(), strict=True):
            if name == tokenizer.eos_token:
                break
            if name.startswith("<extra_id_"):
                last = spans.setdefault(name, [])
            elif spans:
                last.append(token)
        wanted = [tokenizer.decode(spans.get(f"<extra_id_{number}>", [])) for number in range(2)]
        assert said["spans"] == wanted
        parts = row.replace(" <extra", "<extra")
        for number, span in enumerate(wanted):
            parts = parts.replace(f"<extra_id_{number}>", span)
        assert said["text"] == parts


# --- a life ---


def test_from_raw_text_to_a_report(recipe: Path) -> None:
    done = life(recipe).run(Silent())
    figures = json.loads((done.folders["evaluate"] / "metrics.json").read_text())["models"]
    assert figures["base"].keys() >= {"loss", "hidden_loss", "perplexity", "token_accuracy", "spans_exact"}
    assert figures["1-gram"].keys() == {"hidden_loss", "perplexity", "bits_per_byte"}
    assert figures["5-gram"]["hidden_loss"] < figures["1-gram"]["hidden_loss"]
    (shown,) = json.loads((done.folders["evaluate"] / "samples.json").read_text())
    assert "<extra_id_0>" in shown["prompt"]  # the first held-out row, asked


def test_the_unigrams_beside_are_those_of_the_rows_to_train_on(recipe: Path) -> None:
    done = life(recipe).run(Silent())
    figures = json.loads((done.folders["evaluate"] / "metrics.json").read_text())["models"]["1-gram"]
    model, columns = Model.from_pretrained(done.folders["pretrain"]), done.folders["encode"] / "columns"
    tokens = np.asarray(Columns(columns / "train").flat("input_ids")[:]).tolist()
    held_out = next(name for name in ("test", "valid") if len(Columns(columns / name)))
    control, counts = set(model.processor.control.values()), dict[int, int]()
    for token in tokens:
        counts[token] = counts.get(token, 0) + (token not in control)
    room = sum(counts.values()) + model.processor.vocab_size - len(control)
    hidden = [
        token
        for batch in Loader(Columns(columns / held_out), model.context, long="split", ahead=0, seed=0).evaluation(64)
        for token in model.task.posed(batch)["labels"].flatten().tolist()
        if token != IGNORE and token not in control
    ]
    losses = [-np.log((counts.get(token, 0) + 1) / room) for token in hidden]
    assert figures["hidden_loss"] == pytest.approx(float(np.mean(losses)))


def test_a_folder_can_be_learned_on(trained: Path, recipe: Path) -> None:
    """Also one that transformers wrote, with T5's own form of the output (tied, scaled)."""
    shape = transformers.T5Config(
        vocab_size=Model.from_pretrained(trained).processor.vocab_size, d_model=32, d_kv=16, d_ff=64, num_layers=1,
        num_heads=2, feed_forward_proj="relu", tie_word_embeddings=True, pad_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    theirs = recipe.parent / "theirs"
    transformers.T5ForConditionalGeneration(shape).save_pretrained(theirs)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(trained / name, theirs / name)
    kept = "\n".join(line for line in SPANS.splitlines() if not line.startswith(("vocab_size", "depth", "width")))
    (recipe.parent / "base.toml").write_text(kept.replace("[model]", '[model]\nbase = "theirs"'), "utf-8")
    folder = life(recipe.parent / "base.toml").run(Silent(), "pretrain").folders["pretrain"]
    before, after = (Model.from_pretrained(each).architecture for each in (theirs, folder))
    assert before.core == after.core
    assert transformers.T5ForConditionalGeneration.from_pretrained(folder).config.d_model == 32


def test_an_encoder_decoder_begins_at_a_lower_rate(recipe: Path) -> None:
    folder = life(recipe, "train.lr=auto", "train.steps=1").run(Silent(), "pretrain").folders["pretrain"]
    assert Plan.read(folder).lr == 0.005


def test_it_is_served(trained: Path) -> None:
    model = Model.from_pretrained(trained)
    with background(model, "tiny", Serve(port=0)) as url:
        rows = [{"text": "The <extra_id_0> king sees a book."}]
        asked = json.dumps({"model": "tiny", "text": [row["text"] for row in rows]}).encode()
        head = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{url}/predict", asked, head)) as answer:
            said = json.loads(answer.read())["predictions"]
    assert said == model.judge(rows)


def test_a_text_without_a_sentinel_is_refused(trained: Path) -> None:
    with pytest.raises(UserError, match="extra_id_0"):
        Model.from_pretrained(trained).judge([{"text": "nothing is missing here"}])


def test_what_looks_like_a_sentinel_in_a_text_to_learn_from_is_none(text: Text) -> None:
    task = SpanDenoising(text)
    (example,) = task.examples([{"text": "a <extra_id_0> b"}])
    assert not set(example["input_ids"][:-1]) & set(text.control.values())


@pytest.mark.parametrize(
    "given",
    [("model.arch=gpt",), ("task=language_modeling", "model.arch=t5"), ("task=text_classification", "model.arch=t5")],
)
def test_a_form_that_does_not_suit_is_refused_at_once(given: tuple[str, ...], recipe: Path) -> None:
    with pytest.raises(UserError, match=r"model\.arch|do not go together"):
        load_recipe(recipe, given)


def test_another_base_is_refused(trained: Path, tmp_path: Path) -> None:
    spans = Model.from_pretrained(trained)
    with pytest.raises(UserError) as refused:
        spans.for_task("text_classification", 1, ["a", "b"])
    assert refused.value.code == "E348"
    words = life(project(tmp_path / "other")).run(Silent(), "pretrain").folders["pretrain"]
    with pytest.raises(UserError) as refused:
        Model.from_pretrained(words).for_task("span_denoising", 1)
    assert refused.value.code == "E349"


# --- the proof ---


def test_a_recipe_is_certified(recipe: Path) -> None:
    certificate = prove(load_recipe(recipe), Silent())
    assert certificate.failed() == [], certificate.render()


def test_a_wrong_sentinel_is_caught(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (twin,) = twins(life(recipe), tmp_path)
    assert audit.mask(twin).figure == 0.0
    real = SpanDenoising._numbers
    monkeypatch.setattr(SpanDenoising, "_numbers", lambda self, *given: real(self, *given).clamp(max=0))
    assert audit.mask(twin).figure > 0


def test_reading_of_another_text_is_caught(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (twin,) = twins(life(recipe), tmp_path)
    assert audit.attention(twin).figure == 0.0
    monkeypatch.setattr("danlu.nn.network.across_mask", lambda own, read: (read > 0)[:, None, None])
    assert audit.attention(twin).figure > 1e-6


def test_the_weights_are_those_that_files_hold(trained: Path) -> None:
    assert files.damage(trained) == []
