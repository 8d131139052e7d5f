"""Pictures in Python: rows from dicts, in each form that a picture may have; a folder that answers the same."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image as Pillow

from danlu import AutoModel, ViTForImageClassification, files
from danlu.errors import UserError
from tests.api.samples import SAMPLES, stripes

WISH = {"steps": 4, "batch_tokens": 16, "lr": 0.01, "precision": "fp32", "threads": 1, "quiet": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT that saw nothing, as transformers saves it."""
    folder = tmp_path_factory.mktemp("seen") / "vit"
    shape = transformers.ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        id2label={0: "across", 1: "down"}, label2id={"across": 0, "down": 1},
    )  # fmt: skip
    transformers.set_seed(1)
    transformers.ViTForImageClassification(shape).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


def test_pictures_in_a_folder_that_answers_out(base: Path, tmp_path: Path) -> None:
    rows, found = SAMPLES["image_classification"], []
    for _ in range(2):
        model = ViTForImageClassification.from_pretrained(base)
        history = model.fit(rows, **WISH)
        assert len(history["loss"]) == 4
        found.append(files.tensors_hash(model.net.state_dict()))
    assert found[0] == found[1], "the same seed gives the same weights"
    report = model.evaluate(rows, quiet=True)
    assert report.count > 50
    assert 0 <= report["accuracy"] <= 1
    model.save_pretrained(tmp_path / "out")
    again = AutoModel.from_pretrained(tmp_path / "out")
    assert type(again) is type(model)
    assert dict(again.evaluate(rows, quiet=True)) == pytest.approx(dict(report), rel=1e-5, nan_ok=True)


def test_a_picture_is_named_by_its_bytes_a_data_uri_or_its_path(base: Path, tmp_path: Path) -> None:
    model = ViTForImageClassification.from_pretrained(base)
    image = SAMPLES["image_classification"][1]["image"]
    (tmp_path / "one.png").write_bytes(base64.b64decode(image))
    by_path = model.judge([model.asked(str(tmp_path / "one.png"))])
    by_uri, by_bytes = model.predict([{"image": f"data:image/png;base64,{image}"}]), model.predict([{"image": image}])
    assert by_bytes == by_uri == by_path
    assert json.dumps(by_bytes)
    with pytest.raises(UserError, match="E277"):
        model.predict([{"image": base64.b64encode(b"no picture").decode()}])


def test_the_samples_show_what_their_labels_say() -> None:
    for row in SAMPLES["image_classification"][:6]:
        seen = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(row["image"]))).convert("L"), float)
        along: dict[str, Any] = {"across": seen.std(0).mean(), "down": seen.std(1).mean()}
        assert max(along, key=along.__getitem__) == row["label"]
    assert stripes("down", 3) != stripes("across", 3)
