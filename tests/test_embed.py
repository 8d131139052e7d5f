"""The life of a task that gives vectors: pairs of texts in, texts found by what they mean out."""

import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from scipy.stats import pearsonr, spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from danlu import Model, cli, files, models, tasks
from danlu.artifact import Lineage
from danlu.config import Serve
from danlu.data.columns import Columns
from danlu.data.loader import Loader
from danlu.data.starter import recipe as first_recipe
from danlu.graph import Life, Silent
from danlu.metrics import retrieval
from danlu.metrics.bag import BagOfTexts
from danlu.modalities.text import Text
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.recipe import load_recipe
from danlu.serve.run import background
from danlu.stages.prove import prove
from danlu.tasks.task import Batch, Task
from tests import tiny_task
from tests.tiny_life import sentences
from tests.train.test_loss_rule import Ragged

WORDS = (
    {"old": "aged", "small": "tiny", "red": "crimson", "quick": "rapid", "cold": "icy", "loud": "noisy"},
    {"ship": "vessel", "house": "home", "doctor": "medic", "child": "kid", "stone": "rock", "car": "auto"},
    {"sleeps": "rests", "falls": "drops", "begins": "starts", "shines": "glows"},
)


def said(place: int) -> tuple[str, str]:
    """A sentence, and the same in other words; there are 144, in a mixed order."""
    chosen, place = [], place * 53 % 144
    for words in WORDS:
        place, at = divmod(place, len(words))
        chosen.append(list(words.items())[at])
    (one, what, does), (same, which, acts) = zip(*chosen, strict=True)
    return f"The {one} {what} {does}.", f"Some {same} {which} {acts}."


def rows(start: int, count: int) -> list[dict[str, Any]]:
    made = []
    for at in range(start, start + count):
        first, second = said(at)
        row = {"anchor": first, "positive": second}
        made.append(row | ({"negative": said(at * 7 + 1)[1]} if at % 3 else {}))
    return made


def scored(start: int, count: int) -> list[dict[str, Any]]:
    """How many of the three words of one sentence the other has other words for."""
    made = []
    for at in range(start, start + count):
        near = said(at + (0, 36, 24, 1)[at % 4])[1]
        first, meant = said(at)[0], said(at)[1].split()
        shared = sum(a == b for a, b in zip(meant[1:], near.split()[1:], strict=True))
        made.append({"sentence1": first, "sentence2": near, "score": shared})
    return made


def project(folder: Path, make: Any = rows) -> Life:
    columns = 'text = "anchor"' if make is rows else 'text = "sentence1", positive = "sentence2"'
    recipe = tiny_task.recipe("sentence_embedding", "jsonl", data=f"columns = {{ {columns} }}", batch_tokens=512)
    return tiny_task.project(folder, recipe, tiny_task.lines(make(0, 120)), tiny_task.lines(make(120, 24)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("embed")).run(Silent()).folders)


# --- the loss ---


@pytest.fixture(scope="module")
def text() -> Text:
    said = [value for row in rows(0, 80) for value in row.values()] + sentences(60)
    return Text.fit(said, type="wordpiece", vocab_size=300)


def task(text: Text, **options: Any) -> Task:
    made: Task = tasks.load("sentence_embedding")(text, (), 32, options)
    return made


def network(text: Text) -> Network:
    shape = models.preset("bert", text.vocab_size, 32, 1, width=32, hidden=64, heads=2)
    return build(task(text).shaped(shape), torch.Generator().manual_seed(5)).double()


def packed(learned: Task, found: list[dict[str, Any]]) -> Batch:
    columns: Any = Ragged([learned.encode(row) for row in found])
    loader = Loader(columns, 32, long="cut", seed=1, ahead=0)
    return loader.assemble(list(range(len(loader))))


def alone(net: Network, learned: Task, given: str, pool: str = "mean") -> Tensor:
    """The vector of one text that stands alone, written down anew."""
    ids, _ = learned.processor.joined(given, limit=32)
    states = net.hidden({"input_ids": torch.tensor([ids])})[0]
    vector = states.mean(0) if pool == "mean" else states[0]
    return vector / vector.norm()


def measured(learned: Task, net: Network, batch: Batch) -> dict[str, Tensor]:
    with torch.no_grad():
        return learned.measure(net, batch)


def renamed(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours = {"anchor": "text", "sentence1": "text", "sentence2": "positive"}
    return [{ours.get(name, name): value for name, value in row.items()} for row in found]


@pytest.mark.parametrize(("pool", "temperature"), [("mean", 0.05), ("cls", 0.5)])
def test_each_text_is_told_from_all_others_of_the_batch(text: Text, pool: str, temperature: float) -> None:
    """InfoNCE by hand, each text alone; a positive that occurs twice is no negative of itself."""
    learned, net = task(text, pool=pool, temperature=temperature), network(text)
    found = renamed(rows(0, 9))
    found.append({"text": "Say again what it does.", "positive": found[0]["positive"]})
    texts = [*(row["positive"] for row in found), *(row["negative"] for row in found if "negative" in row)]
    vectors = torch.stack([alone(net, learned, each, pool) for each in texts])
    total = torch.zeros(())
    for at, row in enumerate(found):
        near = vectors @ alone(net, learned, row["text"], pool) / temperature
        others = [n for n, each in enumerate(texts) if each != row["positive"]]
        total = total - near[at] + torch.cat([near[at][None], near[others]]).logsumexp(0)
    batch = packed(learned, found)
    assert int(learned.counts(batch)["loss"]) == len(found)
    loss = learned.loss(net, batch)["loss"]
    assert loss.item() == pytest.approx(total.item(), rel=1e-10)
    parameters = [p for name, p in net.named_parameters() if not name.startswith("head")]
    ours, theirs = (torch.autograd.grad(each, parameters, allow_unused=True) for each in (loss, total))
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_pairs_with_higher_scores_are_to_have_higher_cosines(text: Text) -> None:
    learned, net, found = task(text), network(text), renamed(scored(0, 12))
    cosines = [(alone(net, learned, row["text"]) @ alone(net, learned, row["positive"])).item() for row in found]
    wrong = [
        np.exp((lower - higher) / 0.05)
        for lower, one in zip(cosines, found, strict=True)
        for higher, two in zip(cosines, found, strict=True)
        if one["score"] < two["score"]
    ]
    batch = packed(learned, found)
    assert len(wrong) > 20
    assert learned.loss(net, batch)["loss"].item() == pytest.approx(12 * np.log(1 + sum(wrong)), rel=1e-6)
    figures = learned.report(measured(learned, net, batch))
    assert figures["pearson"] == pytest.approx(pearsonr(cosines, [row["score"] for row in found])[0], abs=1e-6)
    assert learned.choices[1] == pytest.approx(1 + len(wrong))


def test_rows_with_and_without_scores_are_learned_together(text: Text) -> None:
    learned, net = task(text), network(text)
    some, others = renamed(rows(0, 8)), renamed(scored(0, 8))
    parts = [learned.loss(net, packed(learned, each))["loss"].item() for each in (some, others)]
    assert learned.loss(net, packed(learned, some + others))["loss"].item() == pytest.approx(sum(parts), rel=1e-9)


def test_a_batch_that_is_a_text_alone_teaches_nothing(text: Text) -> None:
    learned = task(text)
    batch = packed(learned, [{"text": "The old ship sleeps."}])
    assert int(learned.counts(batch)["loss"]) == 0
    assert learned.loss(network(text), batch)["loss"].item() == 0.0


# --- figures, each beside an oracle ---


def test_ranks_are_those_found_by_hand() -> None:
    random = np.random.default_rng(3)
    found = [{"text": f"q{n}", "positive": f"p{n}"} | ({"negative": f"n{n}"} if n % 2 else {}) for n in range(40)]
    found += [{"text": "q0", "positive": "p40"}, {"text": "p3", "positive": "p0"}]
    search = retrieval.Search(found)
    cosines = random.normal(size=(len(found), len(search.candidates)))
    cosines[5] = 0.25
    said = list(search.ranked([cosines[:7], cosines[7:]]))
    for row, near, answer in zip(found, cosines, said, strict=True):
        belongs = {each["positive"] for each in found if each["text"] == row["text"]}
        left = {name: value for name, value in zip(search.candidates, near, strict=True)
                if name == row["positive"] or name not in {*belongs, row["text"]}}  # fmt: skip
        own = left[row["positive"]]
        alike = sum(value == own for value in left.values()) - 1
        assert answer["rank"] == 1 + sum(value > own for value in left.values()) + alike / 2
        assert left[answer["nearest"]] == max(left.values())
    ranks = np.array([answer["rank"] for answer in said])
    figures = retrieval.figures(ranks, np.ones((1, len(ranks))))
    assert figures["recall_at_10"][0] == np.mean(ranks <= 10)
    assert figures["mrr"][0] == pytest.approx(np.mean(1 / ranks))


def test_the_bag_beside_is_scikit_learns_tf_idf() -> None:
    random = np.random.default_rng(4)
    texts = [random.integers(0, 30, random.integers(1, 9)) for _ in range(30)]
    said = [" ".join(f"w{each}" for each in row) for row in texts]
    theirs = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+").fit_transform(said).toarray()
    bag = BagOfTexts(texts, 30, 2)
    assert np.concatenate(list(bag.cosines(texts[:9], texts))) == pytest.approx(theirs[:9] @ theirs.T, abs=1e-12)
    assert bag.paired(texts[:9], texts[9:18]) == pytest.approx((theirs[:9] * theirs[9:18]).sum(1), abs=1e-12)


# --- a whole life ---


def test_it_finds_what_belongs_together(folders: dict[str, Path]) -> None:
    told = files.read_json(folders["evaluate"] / "metrics.json")
    model, found = Model.from_pretrained(folders["pretrain"]), renamed(rows(120, 24))
    assert told["models"]["base"]["recall_at_10"] > 0.8, told["models"]
    assert told["models"]["base"]["batch_recall"] == pytest.approx(told["models"]["base"]["recall_at_1"], abs=0.05)
    assert {"recall_at_1", "recall_at_10", "mrr", "loss"} <= told["models"]["base"].keys()
    assert {"recall_at_1", "mrr"} <= told["models"]["bag"].keys()
    assert told["models"]["base"]["recall_at_1"] > told["models"]["bag"]["recall_at_1"]
    low, high = told["intervals"]["models"]["base"]["recall_at_1"]
    assert low <= told["models"]["base"]["recall_at_1"] <= high
    candidates = list(dict.fromkeys(row[name] for row in found for name in ("positive", "negative") if name in row))
    near = np.array([model.predict(row["text"])["embedding"] for row in found])
    near = near @ np.array([model.predict(each)["embedding"] for each in candidates]).T
    own = np.array([candidates.index(row["positive"]) for row in found])
    ranks = 1 + (near > near[np.arange(len(own)), own][:, None]).sum(1)
    assert told["models"]["base"]["recall_at_1"] == pytest.approx(np.mean(ranks == 1), abs=0.03)
    assert told["models"]["base"]["mrr"] == pytest.approx(np.mean(1 / ranks), abs=0.02)


def test_each_text_stands_alone_among_what_is_learned(folders: dict[str, Path]) -> None:
    """No text is learned with what belongs to it already in it."""
    model, columns = Model.from_pretrained(folders["pretrain"]), Columns(folders["encode"] / "columns" / "test")
    wanted = sorted(model.task.encode(row)["input_ids"] for row in renamed(rows(120, 24)))
    assert sorted(columns.row(at)["input_ids"].tolist() for at in range(len(columns))) == wanted
    texts = [model.processor.joined(row["text"])[0] for row in renamed(rows(120, 24))]
    found = (columns.row(at) for at in range(len(columns)))
    assert sorted(row["input_ids"][row["parts"] == 0].tolist() for row in found) == sorted(texts)


def test_scored_pairs_are_put_in_order(tmp_path: Path) -> None:
    made = project(tmp_path, scored).run(Silent()).folders
    told = files.read_json(made["evaluate"] / "metrics.json")
    model, found = Model.from_pretrained(made["pretrain"]), renamed(scored(120, 24))
    vectors = [[np.array(model.predict(row[name])["embedding"]) for name in ("text", "positive")] for row in found]
    expected = spearmanr([one @ two for one, two in vectors], [row["score"] for row in found])[0]
    assert told["models"]["base"]["spearman"] == pytest.approx(expected, abs=1e-3)
    assert told["models"]["base"]["spearman"] > 0.3
    assert "bag" in told["models"]


def test_it_answers_alike_everywhere_and_so_does_transformers(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, asked = Model.from_pretrained(folders["pretrain"]), [row["anchor"] for row in rows(120, 3)]
    said = [answer["embedding"] for answer in model.judge([{"text": each} for each in asked])]
    assert np.linalg.norm(said, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    stock = transformers.AutoModel.from_pretrained(folders["pretrain"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["pretrain"])
    for given, vector in zip(asked, said, strict=True):
        ids = [tokenizer(given)["input_ids"]]
        assert ids[0] == model.processor.joined(given)[0]
        states = stock(input_ids=torch.tensor(ids)).last_hidden_state[0].mean(0)
        assert vector == pytest.approx(F.normalize(states, dim=0).tolist(), abs=1e-5)
    assert cli.main(["predict", str(folders["pretrain"]), asked[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["embedding"] == pytest.approx(said[0], abs=1e-5)
    with background(model, "tiny", Serve(port=0)) as url:
        served = tiny_task.asked(url, {"text": asked})["predictions"]
        answers = [posted(url, {"model": "tiny", "input": asked, "encoding_format": form}) for form in FORMS]
        one = posted(url, {"model": "tiny", "input": asked[0]})
        pair = dict(zip(("text", "positive"), asked, strict=False))
        cosine = tiny_task.asked(url, pair)["predictions"][0]
        why = tiny_task.asked(url, pair, "explain")
    assert model.predict(json.dumps(pair)) == {"cosine": pytest.approx(np.dot(*said[:2]), abs=1e-5)}
    assert cosine == {"cosine": pytest.approx(np.dot(*said[:2]), abs=1e-5)}
    assert (why["explained"], why["number"]) == ("cosine", pytest.approx(cosine["cosine"], abs=1e-5))
    assert [each["embedding"] for each in served] == [pytest.approx(each, abs=1e-5) for each in said]
    plain, packed = ([each["embedding"] for each in answer["data"]] for answer in answers)
    assert plain == [pytest.approx(each, abs=1e-5) for each in said]
    assert [np.frombuffer(base64.b64decode(each), "<f4").tolist() for each in packed] == [
        pytest.approx(each, abs=1e-6) for each in plain
    ]
    assert [each["index"] for each in answers[0]["data"]] == [0, 1, 2]
    assert (one["object"], one["data"][0]["object"]) == ("list", "embedding")
    assert one["usage"]["total_tokens"] == len(model.processor.joined(asked[0])[0])


FORMS = ("float", "base64")


def posted(url: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}/v1/embeddings", json.dumps(body).encode(), headers)
    ) as reply:
        made: dict[str, Any] = json.load(reply)
    return made


def test_the_nearest_of_many_texts_are_found(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, texts, wanted = Model.from_pretrained(folders["pretrain"]), [said(n)[1] for n in range(40)], said(20)[0]
    (tmp_path / "texts.txt").write_text("\n".join(texts), "utf-8")
    (tmp_path / "texts.jsonl").write_text(tiny_task.lines([{"text": each} for each in texts]), "utf-8")
    vectors = np.array([answer["embedding"] for answer in model.judge([{"text": each} for each in (wanted, *texts)])])
    cosines = vectors[1:] @ vectors[0]
    for name in ("texts.txt", "texts.jsonl"):
        command = ["predict", str(folders["pretrain"]), wanted, "--among", str(tmp_path / name), "--json"]
        assert cli.main(command) == 0
        found = json.loads(capsys.readouterr().out)
        assert [each["place"] - 1 for each in found] == np.argsort(-cosines, kind="stable")[:10].tolist()
        assert [texts[each["place"] - 1] for each in found] == [each["text"] for each in found]
        assert found[0]["score"] == pytest.approx(cosines.max(), abs=1e-5)
    assert said(20)[1] in [each["text"] for each in found[:3]]
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n{"other": "b"}\n', "utf-8")
    assert cli.main(["predict", str(folders["pretrain"]), "a", "--among", str(tmp_path / "texts.jsonl")]) == 3
    assert "texts.jsonl:2" in capsys.readouterr().err


def test_folders_say_to_sentence_transformers_how_states_are_pooled(text: Text, tmp_path: Path) -> None:
    for pool, stated in (("cls", "pooling_mode_cls_token"), ("mean", "pooling_mode_mean_tokens")):
        learned, folder = task(text, pool=pool), tmp_path / pool
        shape = learned.shaped(models.preset("bert", text.vocab_size, 32, 1, width=32, hidden=64, heads=2))
        Model(network(text), shape, learned).save_pretrained(folder)
        told = files.read_json(folder / "1_Pooling" / "config.json")
        assert told["word_embedding_dimension"] == 32
        assert [name for name, value in told.items() if value is True] == [stated]
        kinds = [each["type"].rpartition(".")[2] for each in json.loads((folder / "modules.json").read_text())]
        assert kinds == ["Transformer", "Pooling", "Normalize"]
        config = files.read_json(folder / "config.json")
        del config["danlu"]
        (folder / "config.json").write_text(json.dumps(config))  # as another library would have written it
        assert Model.from_pretrained(folder).task.chosen["pool"] == pool


def test_options_change_what_is_learned_and_stay_with_the_model(tmp_path: Path) -> None:
    project(tmp_path)
    found = {}
    for option in ("", "options.pool=cls", "options.temperature=0.5"):
        given = ["train.steps=3", *([option] if option else [])]
        made = Life(load_recipe(tmp_path / "recipe.toml", given)).run(Silent(), "pretrain").folders["pretrain"]
        found[option] = Lineage.read(made).output_hash, Model.from_pretrained(made).task.chosen
    assert len({weights for weights, _ in found.values()}) == 3
    assert found["options.pool=cls"][1] == {"pool": "cls", "temperature": 0.05}
    assert found["options.temperature=0.5"][1] == {"pool": "mean", "temperature": 0.5}


def test_its_training_is_exact(tmp_path: Path) -> None:
    certificate = prove(project(tmp_path).loaded, Silent())
    assert certificate.error() is None, certificate.render()


# --- raw files ---


@pytest.mark.parametrize(
    "row",
    [
        {"anchor": "Who?", "positive": "It is he."},
        {"query": "Who?", "pos": "It is he.", "neg": "No."},
        {"sentence1": "Who?", "sentence2": "It is he."},
    ],
)
def test_raw_files_of_many_forms_are_recognised(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "rows.jsonl").write_text(
        tiny_task.lines([{name: f"{value} {n}" for name, value in row.items()} for n in range(30)]), "utf-8"
    )
    found, count = first_recipe(tmp_path / "rows.jsonl", Path("rows.jsonl"))
    (tmp_path / "recipe.toml").write_text(found, "utf-8")
    assert 'task = "sentence_embedding"' in found
    folder = Life(load_recipe(tmp_path / "recipe.toml", ())).run(Silent(), "prepare").folders["prepare"]
    assert sum(files.read_json(folder / "funnel.json")["splits"].values()) == count == 30


def test_pairs_with_a_class_or_a_number_are_left_to_the_tasks_that_learn_these(tmp_path: Path) -> None:
    for column, value, wanted in (("label", "same", "text_classification"), ("score", 0.5, "text_regression")):
        made = [{"sentence1": f"Who {n}?", "sentence2": f"He {n}.", column: value if n % 2 else f"{n}.25"[-4:]}
                for n in range(30)]  # fmt: skip
        if column == "label":
            made = [row | {"label": "same" if n % 2 else "other"} for n, row in enumerate(made)]
        else:
            made = [row | {"score": n / 7} for n, row in enumerate(made)]
        (tmp_path / "rows.jsonl").write_text(tiny_task.lines(made), "utf-8")
        assert f'task = "{wanted}"' in first_recipe(tmp_path / "rows.jsonl", Path("rows.jsonl"))[0]


@pytest.mark.parametrize("row", [{"anchor": "Who?", "positive": " "}, {"anchor": "Who?"},
                                 {"anchor": "Who?", "positive": 3}])  # fmt: skip
def test_a_text_that_is_missing_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    life = project(tmp_path)
    with (tmp_path / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    assert "train.jsonl:121" in tiny_task.refused(life, "prepare").where


# --- real weights ---


def test_real_weights_embed_as_their_own_library_does(minilm: Path) -> None:
    """Mean of the states of transformers' own model, of length 1, as 1_Pooling and 2_Normalize of the folder say."""
    texts = ["A cat sits on the mat.", "A kitten is lying on a rug.", "The stock market fell sharply on Monday."]
    model = Model.from_pretrained(minilm)
    ours = np.array([model.predict(each)["embedding"] for each in texts])
    stock = transformers.BertModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    for each, vector in zip(texts, ours, strict=True):
        states = stock(**tokenizer(each, padding=False, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert float(F.normalize(states, dim=0).detach().double() @ torch.tensor(vector)) >= 0.9999
    assert ours[0] @ ours[1] > ours[0] @ ours[2] + 0.2
