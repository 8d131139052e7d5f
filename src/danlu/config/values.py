"""Kinds of values that keys have, and what every section is."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from danlu.messages import text
from danlu.quantity import count, seconds


def _checked(parse: Any) -> AfterValidator:
    def check(value: Any) -> Any:
        parse(value)
        return value

    return AfterValidator(check)


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):  # which would pass as 0 or 1
        raise ValueError(text("recipe.expected.count"))
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Duration = Annotated[str, _checked(seconds)]
Count = Annotated[int | str, BeforeValidator(_no_truth), _checked(count)]
Auto = Literal["auto"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)]
PositiveInt = Annotated[int, Field(ge=1, strict=True)]
Paths = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]


class Section(BaseModel):
    """A table of the recipe: unknown keys are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
