"""A few rows for each task that can be fitted, of which a tiny model can learn something."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image as Pillow

from tests.api.bert import LABELS, rows
from tests.tiny_life import sentences


def _entities(count: int) -> list[dict[str, Any]]:
    """Who a sentence ends with, and what that is."""
    made = []
    for row in rows(count):
        start = row["text"].rindex(row["label"])
        made.append({"text": row["text"], "spans": [[start, start + len(row["label"]), row["label"]]]})
    return made


def _relations(count: int) -> list[dict[str, Any]]:
    """Which of two marked words stands first."""
    made = []
    for i, sentence in enumerate(sentences(count)):
        words, turned = sentence.split(), bool(i % 2)
        for place, mark in ((1, "e2" if turned else "e1"), (-1, "e1" if turned else "e2")):
            words[place] = f"<{mark}>{words[place]}</{mark}>"
        made.append({"text": " ".join(words), "label": f"before{'(e2,e1)' if turned else '(e1,e2)'}"})
    return made


def _questions(count: int) -> list[dict[str, Any]]:
    """Who a sentence ends with is asked for."""
    made = []
    for row in rows(count):
        answer = {"text": row["label"], "answer_start": row["text"].rindex(row["label"])}
        made.append({"question": "It is the", "context": row["text"], "answers": [answer]})
    return made


def _several(count: int) -> list[dict[str, Any]]:
    """Whom a sentence ends with, and whether its number is odd."""
    made = rows(count)
    return [{"text": row["text"], "labels": [row["label"], *(["odd"] * (i % 2))]} for i, row in enumerate(made)]


def _choices(count: int) -> list[dict[str, Any]]:
    """Who a sentence ends with, among all."""
    made = rows(count)
    return [{"text": row["text"], "choices": list(LABELS), "label": str(LABELS.index(row["label"]))} for row in made]


def _scores(count: int) -> list[dict[str, Any]]:
    """A number for each of whom a sentence ends with."""
    return [{"text": row["text"], "score": 1.5 * LABELS.index(row["label"]) + 10} for row in rows(count)]


def _alike(count: int) -> list[dict[str, Any]]:
    """Sentences that end with one word belong together."""
    made = rows(2 * count)
    last = {row["label"]: row["text"] for row in made}
    return [{"text": row["text"], "positive": last[row["label"]]} for row in made[:count]]


def _written(count: int) -> list[dict[str, Any]]:
    """Whom a sentence ends with, to be written in capitals."""
    return [{"text": row["text"], "target": row["label"].upper()} for row in rows(count)]


def stripes(kind: str, seed: int, side: int = 8) -> str:
    """A picture with stripes that run across or down, a PNG file in base64."""
    random = np.random.Generator(np.random.PCG64(seed))
    waves = np.sin(np.arange(side) * 1.6 + random.uniform(0, 6))
    plane = np.broadcast_to(waves[:, None] if kind == "across" else waves, (side, side)) * 100 + 128
    file = io.BytesIO()
    Pillow.fromarray(np.repeat(plane[..., None], 3, 2).astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _pictures(count: int) -> list[dict[str, Any]]:
    """Stripes, and whether they run across or down."""
    kinds = ("across", "down")
    return [{"image": stripes(kinds[place % 2], place), "label": kinds[place % 2]} for place in range(count)]


SAMPLES: dict[str, list[dict[str, Any]]] = {
    "text_classification": rows(60),
    "token_classification": _entities(60),
    "relation_extraction": _relations(60),
    "reading_comprehension": _questions(60),
    "multi_label_classification": _several(60),
    "multiple_choice": _choices(60),
    "text_regression": _scores(60),
    "replaced_token_detection": [{"text": each} for each in sentences(60)],
    "sentence_embedding": _alike(60),
    "masked_language_modeling": [{"text": each} for each in sentences(60)],
    "translation": _written(60),
    "summarization": _written(60),
    "span_denoising": [{"text": each} for each in sentences(60)],
    "language_modeling": [{"text": each} for each in sentences(60)],
    "image_classification": _pictures(60),
    "instruction": [{"prompt": each, "completion": LABELS[i % 3]} for i, each in enumerate(sentences(60))],
}
