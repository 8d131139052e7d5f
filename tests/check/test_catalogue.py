"""What is read of a file without importing it is what it says once it is imported; a new file is all there is to it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from danlu import catalogue, models, tasks
from danlu.config import DIALS
from danlu.config.recipe import Recipe
from tests.check.tree import SOURCE

OF_TASKS = ("adversarial", "arch", "archs", "encoded_by", "habits", "judges", "known_as", "labelled", "makes",
            "options", "shape", "sized", "stock", "teachable", "unsupervised")  # fmt: skip
OF_FAMILIES = ("ALIAS", "DIALS", "SIZES", "SUITS", "TOKENIZER")


@pytest.mark.parametrize("name", catalogue.names())
def test_a_task_states_what_is_read_without_it(name: str) -> None:
    kind = tasks.load(name)
    for attribute in OF_TASKS:
        assert (catalogue.stated(name, attribute) or None) == (getattr(kind, attribute, None) or None), attribute


@pytest.mark.parametrize("name", catalogue.family_names())
def test_a_family_states_itself_what_is_read_without_it(name: str) -> None:
    module = models.family(name)
    for attribute in OF_FAMILIES:
        assert catalogue.of_family(name, attribute) == getattr(module, attribute, None), attribute
    assert set(catalogue.of_family(name, "DIALS") or ()) <= set(DIALS)
    assert catalogue.families()[name] and (module.__doc__ or "").startswith(catalogue.families()[name])


def test_a_form_that_only_suits_tasks_which_name_it_is_named_by_one() -> None:
    named = {form for task in catalogue.names() for form in catalogue.stated(task, "archs") or ()}
    named |= {catalogue.stated(task, "arch") for task in catalogue.names()}
    kinds = {form: catalogue.of_family(form, "SUITS") for form in catalogue.forms()}
    assert set(kinds.values()) == {"texts", "named"}
    assert {form for form, suits in kinds.items() if suits == "named"} <= named
    assert {"gpt", "qwen3"} <= kinds.keys() and "llama" not in kinds


UNSUPERVISED = {"adversarial_image_generation", "image_generation", "language_modeling", "masked_image_modeling",
                "masked_language_modeling", "replaced_token_detection", "span_denoising"}  # fmt: skip


@pytest.mark.parametrize("name", catalogue.names())
def test_a_base_is_tuned_to_what_rows_answer(name: str) -> None:
    table = {"task": name, "data": {"path": "rows"}, "model": {"base": "folder"}}
    assert Recipe(**table).trained == ("pretrain" if name in UNSUPERVISED else "finetune")
    assert Recipe(**table | {"model": {}}).trained == "pretrain"


_NEW = """
from danlu import models
from danlu.config import ModelSection
from danlu.recipe import checked
from danlu.errors import UserError
from pathlib import Path

assert "mine" in models.FAMILIES and "mine" in models.names()
assert ModelSection(arch="mine").arch == "mine"
try:
    checked(ModelSection, {"arch": "yours"}, {}, Path("recipe.toml"))
except UserError as error:
    assert "'mine'" in str(error), error
else:
    raise AssertionError("a form that no file has is taken")
"""


def test_a_file_is_all_that_a_new_family_needs(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "danlu", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCE / "models" / "gpt2.py", tmp_path / "danlu" / "models" / "mine.py")
    done = subprocess.run([sys.executable, "-c", _NEW], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
