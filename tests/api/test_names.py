"""The classes that can be imported are those that families and tasks make."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

import danlu
from danlu import AutoModel, catalogue
from danlu.api import names
from danlu.api.pretrained import Pretrained
from danlu.errors import UserError
from tests.api import bert


def test_they_are_the_classes_of_transformers() -> None:
    known = [name for name in names.known() if not name.startswith("AutoModel")]
    assert {"BertForSequenceClassification", "BertForMaskedLM", "LlamaForCausalLM", "GPT2LMHeadModel"} <= set(known)
    assert not [name for name in known if not hasattr(transformers, name)]
    assert {"AutoModel", "AutoModelForSequenceClassification", "AutoModelForMaskedLM"} <= set(dir(danlu))


def test_every_task_that_names_a_class_has_one() -> None:
    tasks = {task for _, task in names.known().values()}
    assert {name for name in catalogue.names() if catalogue.stated(name, "stock")} <= tasks


def test_a_name_is_one_class() -> None:
    assert danlu.BertForMaskedLM is danlu.BertForMaskedLM
    assert issubclass(danlu.BertForMaskedLM, Pretrained)
    assert danlu.BertForMaskedLM.__module__ == "danlu"
    assert copy.deepcopy(danlu.BertForMaskedLM) is danlu.BertForMaskedLM


def test_a_name_that_is_none_says_which_was_meant() -> None:
    with pytest.raises(AttributeError, match="did you mean 'BertForSequenceClassification'"):
        danlu.BertForSequenceClasification  # noqa: B018
    with pytest.raises(ImportError):
        from danlu import BertForEverything  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(AttributeError):
        danlu.nothing  # noqa: B018


def test_asking_for_a_name_in_vain_loads_nothing_heavy() -> None:
    code = "import danlu, sys; assert not hasattr(danlu, 'nothing'); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("names")
    stocks = ("BertModel", "BertForMaskedLM", "BertForSequenceClassification")
    return {stock: bert.folder(root / stock, stock) for stock in stocks}


def test_auto_model_goes_by_the_folder(folders: dict[str, Path]) -> None:
    for stock, task in (
        ("BertForMaskedLM", "masked_language_modeling"),
        ("BertForSequenceClassification", "text_classification"),
    ):
        model = AutoModel.from_pretrained(folders[stock])
        assert (type(model).__name__, model.task_name) == (stock, task)


def test_another_family_is_one_clear_error(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="from danlu import BertForSequenceClassification, or AutoModel") as caught:
        danlu.RobertaForSequenceClassification.from_pretrained(folders["BertModel"])
    assert caught.value.code == "E341"


def test_a_class_brings_its_head(folders: dict[str, Path]) -> None:
    masked = danlu.BertForMaskedLM.from_pretrained(folders["BertModel"])
    assert masked.net.head.weight is masked.net.embed.tokens.weight, "tied to the table that reads"
    assert len(masked.predict("it is the [MASK]")) == 5
    classes = danlu.BertForSequenceClassification.from_pretrained(folders["BertForMaskedLM"], num_labels=3)
    assert classes.summary().parameters == sum(p.numel() for p in classes.parameters())
    kept = danlu.BertForSequenceClassification.from_pretrained(folders["BertModel"])
    pooler = AutoModel.from_pretrained(folders["BertModel"]).net.head.dense
    assert kept.net.head.dense.weight.equal(pooler.weight), "the pooler is part of what was pretrained"
