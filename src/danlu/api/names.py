"""The classes that can be imported: every family of models with every task that it has a head for.

None is written by hand: a name is what the family's own library calls the class (`models/*.py` say it), and what it
does is the task that says so of itself (`stock` in `tasks/*.py`).
"""

import difflib
from functools import cache

from danlu import catalogue, models
from danlu.api.pretrained import Pretrained

AUTO = "AutoModel"


@cache
def known() -> dict[str, tuple[str, str]]:
    """{name of a class: (family, task)}; AutoModel, and AutoModelForX, take any family."""
    found = {AUTO: ("", "")}
    for family in models.FAMILIES:
        for form in models.family(family).LAYOUT.forms:
            if task := catalogue.task_of([form.stock]):
                found.setdefault(form.stock, (family, task))
    suffixes = {end: task for task in catalogue.names() for end in catalogue.stated(task, "stock") or ()}
    return found | {AUTO + end: ("", task) for end, task in suffixes.items() if end.startswith("For")}


@cache
def named(name: str) -> type[Pretrained]:
    """The class of a name.

    Raises:
        AttributeError: there is none; the likeliest that was meant is named.
    """
    if name not in known():
        near = difflib.get_close_matches(name, known(), n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module 'danlu' has no attribute {name!r}{meant}", name=name)
    family, task = known()[name]
    about = {"__module__": "danlu", "__qualname__": name, "__doc__": _told(family, task)}
    return type(name, (Pretrained,), {**about, "family": family, "default_task": task})


def of(family: str, task: str) -> type[Pretrained]:
    """The class of a model that is loaded; the general one where its family has none for the task."""
    found = next((name for name, pair in known().items() if pair == (family, task)), None)
    return named(found or AUTO)


def _told(family: str, task: str) -> str:
    learns = catalogue.names().get(task, "any task; the folder says which.").removeprefix("Learn ")
    return f"A model of {family or 'any family'} {learns}\n\n{Pretrained.__doc__}"
