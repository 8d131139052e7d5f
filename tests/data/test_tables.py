"""Tables found in raw files: what is learned, from what, and the recipe that says so."""

from pathlib import Path

import pytest

from danlu.data.starter import look, recipe
from danlu.recipe import load_recipe


def write(path: Path, header: str, form: str, count: int = 120) -> Path:
    kinds = ["red", "green", "blue"]
    lines = []
    for n in range(count):
        yes = n * 7 % 2
        lines.append(form.format(n=n, x=n * 0.37 % 5, kind=kinds[n % 3], yes=yes, only="ab"[yes]))
    path.write_text(header + "\n" + "".join(line + "\n" for line in lines), "utf-8")
    return path


@pytest.mark.parametrize(
    ("header", "form", "task", "target", "keys"),
    [
        ("a,b,kind", "{n},{x:.2f},{kind}", "tabular_classification", "kind", {"columns": {"label": "kind"}}),
        ("a,kind,price", "{n},{kind},{x:.2f}", "tabular_regression", "price", {"columns": {"score": "price"}}),
        ("survived,a,kind", "{yes},{x:.2f},{kind}", "tabular_classification", "survived",
         {"columns": {"label": "survived"}}),
        ("survived,alive,a", "{yes},{only},{x:.2f}", "tabular_classification", "survived",
         {"columns": {"label": "survived"}, "ignore": ["alive"]}),
        ("label, a, b", "{yes}, {x:.2f}, {kind}", "tabular_classification", "label", {}),
    ],
)  # fmt: skip
def test_what_is_to_be_learned_is_found(
    tmp_path: Path, header: str, form: str, task: str, target: str, keys: dict[str, object]
) -> None:
    found = look(write(tmp_path / "rows.csv", header, form), task)
    assert found is not None
    assert (found.task, found.said["target"], dict(found.keys)) == (task, target, keys)


def test_a_column_named_as_the_file_is_what_is_learned(tmp_path: Path) -> None:
    found = look(write(tmp_path / "speed.csv", "speed,a,kind", "{x:.3f},{n},{kind}"), "tabular_regression")
    assert found is not None
    assert (found.task, found.said["target"]) == ("tabular_regression", "speed")


def test_the_recipe_runs_as_it_stands_and_names_the_files(tmp_path: Path) -> None:
    write(tmp_path / "cells.data", "a,b,kind", "{n},{x:.2f},{kind}")
    write(tmp_path / "cells.test", "a,b,kind", "{n},{x:.2f},{kind}.", 30)
    written, count = recipe(tmp_path, Path("."))
    (tmp_path / "recipe.toml").write_text(written, "utf-8")
    loaded = load_recipe(tmp_path / "recipe.toml").recipe
    assert count == 120
    assert loaded.task == "tabular_classification"
    assert (loaded.data.path, loaded.data.test) == (["cells.data"], ["cells.test"])
    assert loaded.train.batch_tokens == 64


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("id,text,kind", "{n},a text number {n} of more than six words in it all,{kind}"),
        ("a,kind", "{n},{kind}"),
        ("1,2,3", "{n},{x},{kind}"),
    ],
)
def test_what_is_no_table_is_left_to_others(tmp_path: Path, header: str, form: str) -> None:
    path = write(tmp_path / "rows.csv", header, form)
    assert look(path, "tabular_classification") is None
