"""Killed and resumed: a training that was killed in the middle ends with the weights of one that was not."""

import json
import shutil
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from danlu import files
from danlu.proof.certificate import Check
from danlu.proof.twin import Twin
from danlu.train.plan import PLAN
from danlu.train.session import METRICS, Result, fit

KILLED_AT = 5  # between two checkpoints, so that a step is done again with the optimizer's state of before


class Killed(BaseException):
    """A process that ends in the middle of a step."""


class _Watch:
    """Nobody; or who kills the training at a step."""

    def __init__(self, kill: float = float("inf")):
        self.kill = kill

    def progress(self, done: float, total: float, note: str) -> None:
        if done >= self.kill:
            raise Killed

    def line(self, line: str) -> None: ...


def resumed(twin: Twin, folder: Path) -> tuple[Check, Result]:
    """The check, and what the uninterrupted training ended with. The session is the real one, with its checkpoints."""
    straight, killed = folder / "straight", folder / "killed"
    whole = _trained(twin, straight)
    killed.mkdir()
    shutil.copy(straight / PLAN, killed)  # what is measured is measured once
    try:
        _trained(twin, killed, KILLED_AT)
    except Killed:
        after = _trained(twin, killed)
    other = sum(not torch.equal(tensor, after.weights[name]) for name, tensor in whole.weights.items())
    other += sum(one != two for one, two in zip_longest(_log(straight), _log(killed)))
    digests = [files.tensors_hash(each.weights)[:16] for each in (whole, after)]
    return Check("resumed", float(other), 0.0, f"sha256 {digests[0]} · {digests[1]}"), whole


def _log(out: Path) -> list[dict[str, Any]]:
    """What each step and evaluation found, without its time: the best weights can be those of before the kill."""
    entries = [json.loads(line) for line in (out / METRICS).read_text("utf-8").splitlines()]
    return [{name: value for name, value in entry.items() if name not in ("seconds", "waited")} for entry in entries]


def _trained(twin: Twin, out: Path, kill: float = float("inf")) -> Result:
    """One training in `out`, from what is there on, with nothing in memory from before."""
    out.mkdir(exist_ok=True)
    return fit(twin.request(), twin.network().to(twin.device), out, twin.seed, _Watch(kill))
