"""Whole lives of tasks that answer about rows: what their tests share."""

import json
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe


def recipe(
    task: str, kind: str, *, data: str = "", model: str = "depth = 1", context: int = 32, steps: int = 60,
    batch_tokens: int = 256, train: str = ""
) -> str:  # fmt: skip
    """One that learns from train.KIND and is measured on test.KIND; `data`, `model` and `train` are further lines."""
    return f"""
task = "{task}"
seed = 7

[data]
path = "train.{kind}"
test = "test.{kind}"
split = {{ valid = 0.1, test = 0.0 }}
{data}

[tokenizer]
vocab_size = 300

[model]
context = {context}
{model}

[train]
steps = {steps}
lr = 0.005
batch_tokens = {batch_tokens}
precision = "fp32"
{train}

[system]
threads = 1
"""


def project(folder: Path, written: str, train: str, test: str) -> Life:
    """A folder with such a recipe and its rows; without rows to test on, none are held out."""
    data = tomllib.loads(written)["data"]
    if not test:
        written = written.replace(f'test = "{data["test"]}"\n', "").replace("valid = 0.1", "valid = 0.0")
    for name, rows in ((data["path"], train), (data["test"], test)):
        if rows:
            (folder / name).write_text(rows, "utf-8")
    (folder / "recipe.toml").write_text(written, "utf-8")
    return Life(load_recipe(folder / "recipe.toml", ()))


def lines(rows: list[dict[str, Any]]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def refused(life: Life, until: str) -> UserError:
    """What a life is stopped by."""
    with pytest.raises(UserError) as caught:
        life.run(Silent(), until)
    return caught.value


def asked(url: str, row: dict[str, Any], verb: str = "predict") -> dict[str, Any]:
    """What a server says of a row, or of several given as lists by column."""
    request = urllib.request.Request(f"{url}/{verb}", json.dumps(row).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        said: dict[str, Any] = json.load(reply)
    return said
