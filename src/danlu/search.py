"""Search by meaning: of many texts those whose vectors are nearest to a text's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from danlu.errors import UserError
from danlu.model import Model

NEAREST = 10


def nearest(model: Model, wanted: str, texts: Sequence[str], count: int = NEAREST) -> list[dict[str, Any]]:
    """The texts that are nearest to one, the nearest first: {"text", "place" (from 1), "score" (the cosine)}.

    Raises:
        UserError: E148, the model gives no vectors.
    """
    if not model.embeds:
        raise UserError("E148", task=model.task_name)
    found = [each["embedding"] for each in model.judge([{"text": each} for each in (wanted, *texts)])]
    cosines = np.array(found[1:], np.float32).reshape(len(texts), -1) @ np.array(found[0], np.float32)
    order = np.argsort(-cosines, kind="stable")[:count].tolist()
    return [{"text": texts[place], "place": place + 1, "score": float(cosines[place])} for place in order]


def texts_of(path: str) -> list[str]:
    """The texts of a file: its lines, or what stands under "text" in its rows.

    Raises:
        UserError: there is no such file, or it cannot be read; E275, a row has no text.
    """
    from danlu.data import formats, sources

    found = []
    for file in sources.describe(sources.discover([path], Path.cwd())):
        for line, row in formats.read(file, formats.Cut(record="line")):
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise UserError("E275", where=f"{file.name}:{line}")
            found.append(row["text"])
    return found
