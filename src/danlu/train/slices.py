"""Whole tensors from the rows that several ranks have written."""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from danlu.errors import UserError


def read_slices(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Read safetensors files that hold slices of tensors, at the offsets that torch.distributed.checkpoint notes.

    Raises:
        UserError: E301, a file is missing or damaged, or a slice of a tensor is missing.
    """
    parts: dict[str, list[tuple[list[int], Tensor]]] = {}
    try:
        for path in paths:
            with safe_open(path, framework="pt") as file:
                noted = json.loads((file.metadata() or {}).get("DCP_SHARDING_INFO", "{}"))
                for name in file.keys():  # noqa: SIM118, it is no dictionary
                    parts.setdefault(name, []).append((noted[name]["saved_offsets"], file.get_tensor(name)))
        return {name: _assembled(slices) for name, slices in parts.items()}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError("E301", path=path, reason=str(error)) from error


def _assembled(slices: list[tuple[list[int], Tensor]]) -> Tensor:
    """One tensor from slices at their offsets; ValueError where they do not fill it."""
    first = slices[0][1]
    shape = [max(at[d] + t.shape[d] for at, t in slices) for d in range(first.ndim)]
    whole = first.new_empty(shape)
    if sum(t.numel() for _, t in slices) != whole.numel():
        raise ValueError("slices are missing")
    for at, part in slices:
        whole[tuple(slice(a, a + n) for a, n in zip(at, part.shape, strict=True))] = part
    return whole
