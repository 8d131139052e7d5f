"""What was most wrong is shown: pictures as a contact sheet, texts as a table."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image as Pillow

from danlu import files
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from danlu.report import write
from danlu.verdicts import worst
from tests.tiny_pictures import KINDS, project


def shown(life: Life, *keys: str) -> tuple[list[dict[str, str]], str]:
    """The errors that an evaluation keeps, and the report."""
    run = Life(load_recipe(life.loaded.path, ["train.steps=1", *keys])).run(Silent())
    return files.read_json(run.folders["evaluate"] / "errors.json"), write(run).read_text("utf-8")


def test_pictures_stand_on_a_contact_sheet(tmp_path: Path) -> None:
    """After one step about half of them are taken for the other class."""
    life = project(tmp_path)
    errors, page = shown(life)
    assert 2 < len(errors) <= 20
    assert page.count("<figcaption>") == len(errors)
    assert [each["weight"] for each in errors] == sorted((each["weight"] for each in errors), reverse=True)
    for each in errors:
        assert {each["wanted"], each["found"]} == set(KINDS)
        with Pillow.open(io.BytesIO(base64.b64decode(each["image"]))) as image:
            assert image.size == (12, 12)
        assert each["image"] in page
    fewer, page = shown(life, "evaluate.show=worst-2")
    assert fewer == errors[:2]
    assert page.count("<figcaption>") == 2


def test_other_rows_stand_in_a_table_and_are_no_html() -> None:
    errors = [{"given": "<b>dull</b>", "wanted": "bad", "found": "good", "weight": 0.9}]
    page = "".join(worst(errors))
    assert "&lt;b&gt;dull&lt;/b&gt;" in page
    assert "<b>" not in page and "<figure" not in page
    assert not list(worst([]))


@pytest.mark.parametrize(("task", "value"), [("language_modeling", "worst-5"), ("image_classification", "best-3")])
def test_it_is_refused_where_nothing_is_judged_or_asked(task: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f'task = "{task}"\n[data]\npath = "x"\n[evaluate]\nshow = "{value}"\n', "utf-8")
    with pytest.raises(UserError, match=r"evaluate\.show"):
        load_recipe(path)
