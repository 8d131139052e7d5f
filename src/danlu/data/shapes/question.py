"""A question about a text, and the places of the text that answer it: none where it cannot be answered from there."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes.tagged import moved
from danlu.data.shapes.value import Flaw, Row, required, text

MARK = "question"
COLUMNS = ("question", "context", "answers")
OPTIONAL = ()
CLEAN = ("normalize", "drop_empty")

Answer = tuple[str, int]  # the answer, and where in the context it begins; -1 for one that is worded otherwise


def canonical(row: Mapping[str, Any]) -> Row:
    """The record as a question, its context, and its answers.

    Answers are as SQuAD writes them: objects of `text` and `answer_start`, or one object of two lists; or texts alone.
    An answer that does not stand where it should is looked for nearby; one that is not there is kept to be compared
    with, as long as another one is.

    Raises:
        Flaw: answer, none of them stands in the context; or what a text and a list raise.
    """
    required(row, ("question", "context"))
    question, context = text(row["question"], "question"), text(row["context"], "context")
    given = [] if row.get("is_impossible") else _given(row.get("answers"))
    answers = [(said, _found(context, said, start)) for said, start in given]
    if answers and all(start < 0 for _, start in answers):
        raise Flaw("answer", answer=answers[0][0][:40], question=question[:40])
    return {"question": question, "context": context, "answers": answers}


def plain(row: Row) -> str:
    """The question and what it is about, as one string: an empty one where nothing is asked, which is then dropped."""
    return f"{row['question']}\n{row['context']}" if row["question"].strip() else ""


def group(row: Row) -> str:
    """What decides on the split: questions about one text stay together."""
    return str(row["context"])


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    edges = {edge for said, start in row["answers"] if start >= 0 for edge in (start, start + len(said))}
    context, places = moved(row["context"], change, edges)
    answers = [
        (context[places[start] : places[start + len(said)]], places[start]) if start >= 0 else (change(said), start)
        for said, start in row["answers"]
    ]
    return {"question": change(row["question"]), "context": context, "answers": answers}


def stored(row: Row) -> dict[str, str]:
    return {**row, "text": plain(row), "answers": json.dumps(row["answers"], ensure_ascii=False)}


def loaded(row: Mapping[str, Any]) -> Row:
    answers = json.loads(row["answers"]) if isinstance(row["answers"], str) else row["answers"]
    return {**{name: row[name] for name in COLUMNS}, "answers": [(said, start) for said, start in answers]}


def _given(answers: Any) -> list[Answer]:
    """Answers as they are written, each with its place, or -1 where that is not said."""
    if answers is None:
        raise Flaw("column", column="answers", found="question, context")
    if isinstance(answers, dict) and isinstance(answers.get("text"), list):
        starts = answers.get("answer_start", [-1] * len(answers["text"]))
        answers = [{"text": said, "answer_start": start} for said, start in zip(answers["text"], starts, strict=False)]
    found = [_one(each) for each in (answers if isinstance(answers, list) else [answers])]
    return [(said, start) for said, start in found if said.strip()]


def _one(answer: Any) -> Answer:
    if isinstance(answer, dict):
        start = answer.get("answer_start", -1)
        return text(answer.get("text"), "answers.text"), start if isinstance(start, int) else -1
    return text(answer, "answers"), -1


def _found(context: str, said: str, start: int) -> int:
    """Where the answer stands: where it should, else the nearest place; -1 where it is not there."""
    if start >= 0 and context.startswith(said, start):
        return start
    places = [place for place in range(len(context)) if context.startswith(said, place)]
    return min(places, key=lambda place: abs(place - max(start, 0)), default=-1)
