"""Reading and writing other libraries' model files: their config.json, their tensor names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from danlu.errors import UserError
from danlu.nn.positions import SCALINGS, Buckets, Rotary

_MISSING = object()
# Rotary's fields by the names they have in a config.json.
_ROPE_FIELDS = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_length": "original_max_position_embeddings",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "magnitude": "attention_factor",
}


def positive(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A whole number > 0; None in the file means the default.

    Raises:
        UserError: E320 where it is missing or something else.
    """
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or value <= 0:
        raise refusal(key, value)
    return value


def number(config: Mapping[str, Any], key: str, default: float) -> float:
    """A number >= 0, or E320."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise refusal(key, value)
    return float(value)


def only(config: Mapping[str, Any], **carried: Any) -> None:
    """Refuse (E320) the keys whose value changes the model and is not the one that danlu carries; absent is fine."""
    for key, value in carried.items():
        if config.get(key, value) != value:
            raise refusal(key, config[key])


def refusal(key: str, value: Any) -> UserError:
    """The error for a config that danlu does not carry; E329 where there is no value."""
    if value is None:
        return UserError("E329", where="config.json", key=key)
    return UserError("E320", where="config.json", key=key, value=repr(value))


def place(path: Path, key: str) -> str:
    """The line of a key in a JSON file; the file where it has none."""
    if not path.is_file():
        return str(path)
    found = [number for number, line in enumerate(path.read_text("utf-8").splitlines(), 1) if f'"{key}"' in line]
    return f"{path}:{found[0]}" if found else str(path)


def rotary_from(config: Mapping[str, Any]) -> Rotary:
    """From the new spelling (rope_parameters) or the old one (rope_theta, rope_scaling); E320 for kinds we lack."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in SCALINGS or (kind == "yarn" and not given.get("truncate", True)):
        raise refusal("rope_type", kind)
    only(given, mscale=None, mscale_all_dim=None, partial_rotary_factor=1.0)
    theta = number(given, "rope_theta", number(config, "rope_theta", Rotary().theta))
    known = {ours: given[theirs] for ours, theirs in _ROPE_FIELDS.items() if given.get(theirs) is not None}
    if kind in ("llama3", "yarn"):
        known.setdefault("original_length", positive(config, "max_position_embeddings"))
    return Rotary(theta=theta, scaling=kind, **(known if kind != "default" else {}))


def rotary_to(rotary: Rotary | Buckets | None) -> dict[str, Any]:
    """The old spelling, which every version of every reader takes; nothing for other kinds of position."""
    if not isinstance(rotary, Rotary):
        return {}
    if rotary.scaling == "default":
        return {"rope_theta": rotary.theta, "rope_scaling": None}
    plain = Rotary()
    changed = {
        theirs: getattr(rotary, ours)
        for ours, theirs in _ROPE_FIELDS.items()
        if getattr(rotary, ours) != getattr(plain, ours) or (rotary.scaling == "llama3" and ours != "magnitude")
    }
    return {"rope_theta": rotary.theta, "rope_scaling": {"rope_type": rotary.scaling, **changed}}


def template(name: str) -> tuple[str, str]:
    """A name with {n} for the number of its layer, and that number ("" where there is none)."""
    number = re.search(r"(?<=\.)\d+(?=\.)", name)
    return (name, "") if number is None else (name.replace(f".{number[0]}.", ".{n}.", 1), number[0])


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str], ignored: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors under their new names; `names` holds templates in which {n} stands for the number of the layer.

    Raises:
        UserError: E321, a tensor has no place in that form.
    """
    result = {}
    for name, tensor in state.items():
        general, number = template(name)
        known = name if name in names else general
        if known in names:
            result[names[known].replace("{n}", number)] = tensor
        elif not {name, general} & set(ignored):
            raise UserError("E321", name=name)
    return result


def inverted(names: Mapping[str, str]) -> dict[str, str]:
    """The same table read from the other side."""
    return {theirs: ours for ours, theirs in names.items()}


def without_copy(state: Mapping[str, Tensor], copy: str, original: str) -> dict[str, Tensor]:
    """The state without tensor `copy` when it is equal to `original`: some files hold a tied tensor twice."""
    twice = copy in state and original in state and state[copy].equal(state[original])
    return {name: tensor for name, tensor in state.items() if not (twice and name == copy)}


def always_tied(tied: bool) -> None:
    """Raise ValueError for a form whose output is always the embedding's table."""
    if not tied:
        raise ValueError("its output weights are always the embedding's (tied)")
