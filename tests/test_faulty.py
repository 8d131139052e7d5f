"""What is wrong with a base model or with labelled rows, one fault a line: said before anything slow, at both doors."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from danlu import AutoModel, BertForSequenceClassification, cli, messages
from danlu import folder as folders
from danlu.errors import UserError
from danlu.models import weights
from tests.api import bert

RECIPE = """
task = "text_classification"
[data]
path = "train.csv"
test = "test.csv"
split = { valid = 0.0, test = 0.0 }
[model]
base = "base"
context = 32
[train]
steps = 1
batch_tokens = 256
precision = "fp32"
[system]
threads = 1
"""
FLOAT = 4  # bytes
ONLY_ALL = ("E251", "E252", "E313", "E216")  # what only all rows show: a plan reads the first of them


def table(rows: list[tuple[str, str]], head: str = "text,label") -> str:
    return "\n".join([head, *(f'"{text}",{label}' for text, label in rows)]) + "\n"


ROWS = [(row["text"], row["label"]) for row in bert.rows(30)]
HELD = [(row["text"], row["label"]) for row in bert.rows(6, 30)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert.classifier(tmp_path_factory.mktemp("sound") / "base")


@pytest.fixture
def place(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sound base, rows and a recipe."""
    (tmp_path / "base").mkdir()
    for file in sound.iterdir():
        (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "train.csv").write_text(table(ROWS), "utf-8")
    (tmp_path / "test.csv").write_text(table(HELD), "utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders whose weights were read."""
    seen: list[Path] = []
    real = weights.read
    monkeypatch.setattr(weights, "read", lambda folder: (seen.append(folder), real(folder))[1])
    yield seen
    messages.use("en")


# --- what is broken ---------------------------------------------------------------------------------------


def said(**values: Any) -> Callable[[Path], None]:
    """config.json with other values; None takes a key away."""

    def broken(folder: Path) -> None:
        path = folder / "base" / "config.json"
        config = json.loads(path.read_text()) | values
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}, indent=1))

    return broken


def gone(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / "base" / name).unlink(missing_ok=True) for name in names] and None


def pickled(folder: Path) -> None:
    (folder / "base" / "model.safetensors").rename(folder / "base" / "pytorch_model.bin")


def cut(folder: Path) -> None:
    path = folder / "base" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flipped(place_of: Callable[[bytes], int], bit: int) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        path = folder / "base" / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[place_of(bytes(content))] ^= bit
        path.write_bytes(content)

    return broken


def exponent(content: bytes) -> int:
    """The byte with the exponent's highest bits of one value below 2."""
    header = 8 + int.from_bytes(content[:8], "little")
    return header + (len(content) - header) // (2 * FLOAT) * FLOAT + FLOAT - 1


def vocabulary(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    """The tokens of the base's tokenizer, changed."""

    def broken(folder: Path) -> None:
        (folder / "base" / "tokenizer.json").unlink()
        path = folder / "base" / "vocab.txt"
        path.write_text("\n".join(change(path.read_text("utf-8").split("\n"))), "utf-8")

    return broken


def long_table(folder: Path) -> None:
    """The weights of a model with 2,000 tokens more."""
    path = folder / "base" / "model.safetensors"
    tensors = load_file(path)
    name = "bert.embeddings.word_embeddings.weight"
    tensors[name] = torch.nn.functional.pad(tensors[name], (0, 0, 0, 2000))
    save_file(tensors, path, {"format": "pt"})
    said(vocab_size=len(tensors[name]))(folder)


def rows(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content, "utf-8") and None


def stranger(folder: Path) -> None:
    said(id2label=dict(enumerate(bert.LABELS)))(folder)
    rows("train.csv", table([*ROWS, ("It is.", "duke")]))(folder)


@dataclass(frozen=True)
class Fault:
    name: str
    broken: Callable[[Path], None]
    code: str
    exit: int
    where: str = ""  # the end of the place that is named
    loaded: bool = False  # whether only the values of the weights show it
    fit: str = ""  # the code that `fit` gives, where that is another


OF_BASES = (
    Fault("no folder", lambda folder: (folder / "base").rename(folder / "else") and None, "E304", 4),
    Fault("no weights", gone("model.safetensors"), "E304", 4),
    Fault("pickled weights alone", pickled, "E325", 4),
    Fault("weights cut short", cut, "E301", 4),
    Fault("a bit of their header flipped", flipped(lambda _: 9, 4), "E301", 4),
    Fault("a bit of a value flipped", flipped(exponent, 0x40), "E335", 4, loaded=True),
    Fault("no config.json", gone("config.json"), "E301", 4),
    Fault("config.json is no JSON", lambda f: (f / "base/config.json").write_text('{\n"a": 1,\n') and None,
          "E301", 4, "config.json:3"),
    Fault("code of its own", said(auto_map={"AutoModel": "evil.Model"}), "E327", 4, "config.json:"),
    Fault("an unknown family", said(model_type="deberta-v2"), "E322", 4, "config.json:"),
    Fault("no family", said(model_type=None), "E329", 4, "config.json"),
    Fault("a family that its config.json does not describe", said(model_type="gpt2"), "E329", 4, "config.json"),
    Fault("a size that is none", said(num_attention_heads=7), "E320", 4, "config.json:"),
    Fault("layers that the file lacks", said(num_hidden_layers=3), "E308", 4),
    Fault("another width", said(hidden_size=64), "E308", 4),
    Fault("a head that the file lacks", said(architectures=["BertForMaskedLM"]), "E332", 4, "config.json:"),
    Fault("no tokenizer", gone("tokenizer.json", "vocab.txt"), "E301", 4),
    Fault("a tokenizer with more tokens", vocabulary(lambda all: [*all, "new"]), "E328", 4),
    Fault("a tokenizer with far fewer tokens", long_table, "E333", 4),
    Fault("a tokenizer that fills up with another token", vocabulary(lambda all: [*all[1:], all[0]]),
          "E334", 4, "config.json:"),
)  # fmt: skip
OF_ROWS = (
    Fault("no file", lambda folder: (folder / "train.csv").unlink(), "E202", 3),
    Fault("an empty file", rows("train.csv", ""), "E222", 3),
    Fault("a header alone", rows("train.csv", table([])), "E222", 3),
    Fault("other columns", rows("train.csv", table(ROWS, "question,class")), "E201", 3),
    Fault("one class", rows("train.csv", table([(text, "king") for text, _ in ROWS])), "E251", 3),
    Fault("a label in the test rows alone", rows("test.csv", table([*HELD, ("It is.", "duke")])), "E252", 3,
          "test.csv:8"),
    Fault("a label that the base does not know", stranger, "E313", 4),
    Fault("empty texts alone", rows("train.csv", table([("", label) for _, label in ROWS])), "E216", 3, fit="E204"),
)  # fmt: skip


def named(fault: Fault) -> str:
    return fault.name


def doors(faults: Sequence[Fault]) -> list[Any]:
    """Each fault with `danlu run`, and with its plan where that reads what is broken."""
    run = [pytest.param(each, ["run"], id=f"{each.name}-run") for each in faults]
    seen = [each for each in faults if not each.loaded and each.code not in ONLY_ALL]
    return run + [pytest.param(each, ["run", "--plan"], id=f"{each.name}-plan") for each in seen]


@pytest.mark.parametrize(("fault", "verb"), doors(OF_BASES))
def test_a_base_is_looked_at_before_any_row_is_read(
    fault: Fault, verb: list[str], place: Path, loads: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    fault.broken(place)
    assert cli.main([*verb, "recipe.toml"]) == fault.exit
    told = capsys.readouterr().err
    assert f"[{fault.code}]" in told
    assert fault.where in told
    if not fault.loaded:
        assert not loads
        assert not list(place.glob("runs/store/*"))
        assert cli.main([*verb, "recipe.toml", "--lang", "zh"]) == fault.exit
        assert f"错误[{fault.code}]" in capsys.readouterr().err


@pytest.mark.parametrize("fault", OF_BASES, ids=named)
def test_a_base_is_refused_in_python_too(fault: Fault, place: Path, loads: list[Path]) -> None:
    fault.broken(place)
    with pytest.raises(UserError) as problem:
        AutoModel.from_pretrained(place / "base")
    assert problem.value.code == fault.code
    assert fault.where in problem.value.render()
    assert bool(loads) == fault.loaded


@pytest.mark.parametrize(("fault", "verb"), doors(OF_ROWS))
def test_rows_are_refused_before_weights_are_read(
    fault: Fault, verb: list[str], place: Path, loads: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    fault.broken(place)
    assert cli.main([*verb, "recipe.toml"]) == fault.exit
    told = capsys.readouterr().err
    assert f"[{fault.code}]" in told
    assert fault.where in told
    assert not loads
    assert cli.main([*verb, "recipe.toml", "--lang", "zh"]) == fault.exit
    assert f"错误[{fault.code}]" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [f for f in OF_ROWS if f.code not in ("E252", "E201")], ids=named)
def test_rows_are_refused_by_fit_too(fault: Fault, place: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(place / "base")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fault.broken(place)
    with pytest.raises(UserError) as problem:
        model.fit(place / "train.csv", **bert.QUICK)
    assert problem.value.code == (fault.fit or fault.code)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_fit_refuses_a_column_that_is_not_there(place: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(place / "base")
    with pytest.raises(UserError) as problem:
        model.fit(place / "train.csv", columns={"text": "review"}, **bert.QUICK)
    assert problem.value.code == "E201"


ODD = (
    ("an empty text", [*ROWS[:20], ("", "king"), *ROWS[20:]], "left out of 37 rows: 1 empty (train.csv:22)"),
    ("a class of one row", [*[row for row in ROWS if row[1] != "ship"], ("It is a ship.", "ship")],
     "1 labels have a single row to learn from, ship for one (train.csv:22)"),
    ("a long text", [*ROWS, ("king " * 500, "king")], "1 rows reach the 32 tokens of the context"),
)  # fmt: skip


@pytest.mark.parametrize(("train", "line"), [odd[1:] for odd in ODD], ids=[odd[0] for odd in ODD])
def test_what_is_odd_is_told_and_trained_on(
    train: list[tuple[str, str]], line: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = [row for row in HELD if row[1] != "ship"] if "ship" in line else HELD
    (place / "train.csv").write_text(table(train), "utf-8")
    (place / "test.csv").write_text(table(held), "utf-8")
    assert cli.main(["run", "recipe.toml"]) == 0
    told = capsys.readouterr()
    assert line in told.err + told.out


def test_a_sound_folder_passes(place: Path, loads: list[Path]) -> None:
    folders.check(place / "base")
    assert not loads
