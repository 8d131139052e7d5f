"""The settings that a task has of its own, as its file states them: read strictly, as a section is."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from danlu import catalogue
from danlu.config.values import Section


def stated(task: str) -> dict[str, tuple[Any, Any, str]]:
    """{name: (value unless told, what it may be, what it is)}: a tuple of words, or [least, most]; a truth has none."""
    return catalogue.stated(task, "options") or {}


@cache
def section(task: str) -> type[Section]:
    """The section that holds a task's options."""
    fields: dict[str, Any] = {
        name: (_kind(default, allowed), Field(default, description=said))
        for name, (default, allowed, said) in stated(task).items()
    }
    return create_model(f"{task}_options", __base__=Section, **fields)


def complete(task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a task, as given or as it is unless told.

    Raises:
        pydantic.ValidationError: one is unknown, or not what it may be.
    """
    return section(task).model_validate(dict(given)).model_dump()


def _kind(default: Any, allowed: Any) -> Any:
    if isinstance(allowed, tuple):
        return Literal[allowed]
    limits = {"ge": allowed[0], "le": allowed[1]} if allowed else {}
    return Annotated[type(default), Field(strict=True, **limits)]
