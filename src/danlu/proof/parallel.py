"""One rank equals two: two processes take their rows of one step, and sum their gradients as in every training.

The reference is automatic differentiation over all rows of the step in this process.
"""

import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import torch

from danlu import files, ranks
from danlu.data.loader import Shape
from danlu.messages import text
from danlu.proof.certificate import Check
from danlu.proof.gradients import EXACT, Named, difference, first_step, gradient
from danlu.proof.twin import Twin
from danlu.randomness import generator
from danlu.train import distributed

COUNT = 2
STEP = Shape(rows=7, accumulate=2)  # an odd number of rows: ranks with equal counts would hide a mean of means
START = "fork" if sys.platform == "linux" else "spawn"  # a fork has torch loaded, elsewhere it is not safe
_PATIENCE = 60.0  # seconds


def two_ranks(twin: Twin) -> Check:
    """The largest difference of what two ranks hold after their sum from the gradient of all rows."""
    with tempfile.TemporaryDirectory(dir=twin.folder) as name:
        folder = Path(name)
        _together(twin, folder)
        said = [path.read_text("utf-8") for path in sorted(folder.glob("failed-*"))]
        found = [files.read_tensors(path) for path in sorted(folder.glob("rank-*.safetensors"))]
    if said or len(found) < COUNT:
        lost = text("proof.rank_lost", seconds=f"{_PATIENCE:g}")
        return Check("ranks", float("nan"), EXACT, said[0] if said else lost)
    wanted = _alone(twin)
    return Check("ranks", max(difference(each, wanted) for each in found), EXACT)


def _alone(twin: Twin) -> Named:
    """The gradient of the step over all of its rows, corrupted as the training loop does it."""
    loader, draw = twin.loader(), lambda micro: generator(twin.seed, "corrupt", 0, micro)
    seen = [twin.task.corrupt(loader.train(0, n, STEP), draw(n)) for n in range(STEP.accumulate)]
    batches = [twin.task.staged(batch, 0.0) for batch in seen]
    return gradient(twin.task, twin.exact(), batches)


def _together(twin: Twin, folder: Path) -> None:
    """Start the ranks and wait until they have ended; none outlives this."""
    port, context = ranks.free_port(), cast(Any, multiprocessing.get_context(START))
    started = [context.Process(target=_rank, args=(rank, port, twin, folder), daemon=True) for rank in range(COUNT)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which the ranks do not use
        for each in started:
            each.start()
    limit = time.monotonic() + _PATIENCE
    for each in started:
        each.join(max(0.0, limit - time.monotonic()))
    _end(started)


def _end(started: list[BaseProcess]) -> None:
    for each in started:
        if each.is_alive():
            each.kill()
            each.join()


def _rank(rank: int, port: int, twin: Twin, folder: Path) -> None:
    """One of the processes: its share of the step, and what the sum over all left it with."""
    os.environ |= ranks.environment(rank, COUNT, port)
    torch.set_num_threads(1)  # threads do not survive a fork
    try:
        together, loader = distributed.joined(twin.task), twin.loader()
        loader.share = together.share
        found = first_step(twin.task, twin.exact(), loader, STEP, twin.seed, together)
        files.write_tensors(folder / f"rank-{rank}.safetensors", found)
        ranks.leave()
    except Exception as error:  # noqa: BLE001, whatever it is: the certificate shows it
        files.write_text(folder / f"failed-{rank}", f"rank {rank}: {type(error).__name__}: {error}")
