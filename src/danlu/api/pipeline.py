"""`pipeline("text-classification", model=folder)`: asked in the manner of the ecosystem, and answered in its form."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import catalogue
from danlu.api import names
from danlu.errors import UserError

if TYPE_CHECKING:
    from danlu.api.pretrained import Pretrained

Answer = dict[str, Any]


def known() -> dict[str, str]:
    """{what a pipeline is called: the task}: what tasks say that they are known as, and their own names with dashes."""
    tasks = catalogue.names()
    own = {name.replace("_", "-"): name for name in tasks}
    return own | {other: name for name in tasks for other in catalogue.stated(name, "known_as") or ()}


class Pipeline:
    """Call it with a text or a list of them (pairs as tuples, or dicts of what the task reads)."""

    def __init__(self, task: str, model: "Pretrained"):
        self.task, self.model = task, model

    def __call__(self, inputs: Any = None, **options: Any) -> Any:
        """Answers in the form of transformers' pipeline of that name, else as `predict` gives them.

        text-classification takes top_k (None = all), fill-mask top_k, text-generation max_new_tokens, temperature,
        top_p and the other ways of sampling.
        """
        if inputs is None:  # question=..., context=...
            inputs = {name: options.pop(name) for name in self.model.asks if name in options}
        many = isinstance(inputs, list)
        given = inputs if many else [inputs]
        answers = _FORMS.get(self.model.task_name, _plain)(self.model, given, **options)
        if many or self.model.task_name == "text_classification":  # one text has a list of one answer there
            return answers if many or isinstance(answers[0], dict) else answers[0]
        return answers[0]

    def __repr__(self) -> str:
        return f"{self.task} · {type(self.model).__name__}"


def pipeline(task: str | None = None, model: Any = None, device: str = "cpu") -> Pipeline:
    """A pipeline of a model, or of a folder; without a task, of what the folder's model does.

    Raises:
        UserError: E111 there is no such pipeline, E145 the model was not trained for it, E304 there is no model.
    """
    if task is not None and task not in known():
        raise UserError("E111", found=task, valid=", ".join(sorted(known())))
    if model is None:
        raise UserError("E304", path=model)
    found = names.named(names.AUTO).from_pretrained(model, device) if isinstance(model, str | Path) else model
    wanted = known()[task] if task is not None else found.task_name
    if wanted != found.task_name and not (wanted == "language_modeling" and found.task.ahead):
        raise UserError("E145", path=model, task=found.task_name, wanted=task)
    return Pipeline(task or found.task_name.replace("_", "-"), found)


def _plain(model: "Pretrained", rows: Sequence[Any]) -> list[Any]:
    answers: list[Any] = model.predict(list(rows))
    return answers


def _classes(model: "Pretrained", rows: Sequence[Any], top_k: int | None = 1) -> list[Any]:
    """[{"label", "score"}] of each, the likeliest first; with top_k one list of them for each."""
    found = []
    for answer in model.predict(list(rows)):
        ranked = sorted(answer["scores"].items(), key=lambda each: -each[1])
        found.append([{"label": label, "score": score} for label, score in ranked[:top_k]])
    return [each[0] for each in found] if top_k == 1 else found


def _continued(model: "Pretrained", rows: Sequence[Any], **options: Any) -> list[list[Answer]]:
    """[{"generated_text"}] of each, the prompt in front."""
    from dataclasses import replace

    renamed = {"max_tokens" if name == "max_new_tokens" else name: value for name, value in options.items()}
    way = replace(model.usual, **renamed)
    return [[{"generated_text": row + model.predict(row, way)}] for row in rows]


def _filled(model: "Pretrained", rows: Sequence[Any], top_k: int = 5) -> list[Any]:
    """[{"score", "token", "token_str", "sequence"}] of each, for the one place that is masked."""
    return [fill(model, row, top_k) for row in rows]


def fill(model: "Pretrained", given: str, top_k: int = 5) -> Any:
    """The likeliest tokens in the place of the mask; of several masks, a list of them for each.

    Raises:
        UserError: E146, nothing is masked.
    """
    import torch

    processor = model.processor
    ids = model.task.asking({"text": given})[0]["input_ids"]
    batch = torch.tensor([ids], device=model.net.device)
    with torch.no_grad():
        shares = model(input_ids=batch).logits[0].float().softmax(-1)
    places = [place for place, index in enumerate(ids) if index == processor.mask_id]
    found = [_likeliest(model, ids, place, shares[place], top_k) for place in places]
    return found[0] if len(found) == 1 else found


def _likeliest(model: "Pretrained", ids: Sequence[int], place: int, shares: Any, top_k: int) -> list[Answer]:
    scores, best = shares.topk(top_k)
    filled = ([*ids[:place], token, *ids[place + 1 :]] for token in best.tolist())
    return [
        {"score": score, "token": token, "sequence": model.processor.decode(sequence),
         "token_str": model.processor.decode([token]) or model.processor.show([token])[0]}
        for score, token, sequence in zip(scores.tolist(), best.tolist(), filled, strict=True)
    ]  # fmt: skip


_FORMS: dict[str, Callable[..., list[Any]]] = {
    "text_classification": _classes, "language_modeling": _continued, "instruction": _continued,
    "masked_language_modeling": _filled,
}  # fmt: skip
