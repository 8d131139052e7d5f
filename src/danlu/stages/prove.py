"""A recipe -> a certificate: what must hold of its trainings, checked on a tiny twin of each in under a minute."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from danlu import device
from danlu.graph import Life, View
from danlu.messages import text
from danlu.proof.certificate import Certificate, Check

if TYPE_CHECKING:
    from danlu.proof.twin import Twin
    from danlu.recipe import Loaded


def prove(loaded: "Loaded", view: View) -> Certificate:
    """Check every training of a recipe on the user's own rows.

    Raises:
        UserError: the recipe, its data or its base model cannot be used; a failed check is in the certificate.
    """
    from danlu.proof.twin import twins

    started, life = time.monotonic(), Life(loaded)
    life.ready()
    compiles = _compiles(loaded)
    certificate = Certificate(loaded.path.name, left_out=[] if compiles else ["compiled"])
    with tempfile.TemporaryDirectory(prefix="danlu-prove-") as folder, _threads(loaded):
        view.stage("prove", text("proof.sampling"))
        for twin in twins(life, Path(folder)):
            certificate.twins[twin.stage] = str(twin)
            found = certificate.checks.setdefault(twin.stage, [])
            for check in _checks(twin, compiles=compiles):
                found.append(check)
                view.progress(len(found), _COUNT + compiles, text(f"proof.check.{check.name}"))
    certificate.seconds = time.monotonic() - started
    return certificate


_COUNT = 11  # checks of a training


def _compiles(loaded: "Loaded") -> bool:
    """Whether the recipe asks for compiled blocks, and they can be built: that takes longer than all other checks."""
    from danlu.train import compiling

    system = loaded.recipe.system
    return system.compile is True and compiling.available(device.chosen(system.device))


def _checks(twin: "Twin", *, compiles: bool) -> Iterator[Check]:
    from danlu.proof import audit, gradients, parallel, resume, served

    if twin.task.coupled != "batch":  # rows that see each other are never split
        yield gradients.splits(twin)
    if twin.task.coupled == "none":
        yield parallel.two_ranks(twin)
    yield from gradients.layouts(twin)
    if compiles:
        yield gradients.compiled(twin)
    yield audit.mask(twin)
    if twin.architecture.core.heads and not twin.loader().whole:  # pictures in a batch share no attention
        yield audit.attention(twin)
    check, result = resume.resumed(twin, twin.folder)
    yield check
    yield from served.served(twin, result.weights, twin.folder / "model")


@contextmanager
def _threads(loaded: "Loaded") -> Iterator[None]:
    """The recipe's threads, as its trainings use them; those of before afterwards."""
    import torch

    before = torch.get_num_threads()
    device.use(loaded.recipe.system)
    try:
        yield
    finally:
        torch.set_num_threads(before)
