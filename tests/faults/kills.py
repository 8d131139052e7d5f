"""Kill a training at every kind of moment, run it again, and compare: a fork server.

One process imports torch once and warms up the optimizers without a backward pass (autograd's state does not survive
a fork). For each kill point it forks a child that trains as usual, on a plan that lies on disk, and kills itself with
SIGKILL right before its k-th event; a write is met half done every other time. Events are each change of the disk
(tests/faults/disk.py), each micro-batch of a part, each evaluation and each step. A second child goes on from what lies
there and finishes; in a nested chain that one is killed too, up to five times. What must be equal to the training that
nobody killed: the loss, rate and gradient norm of every step, the validation losses, the selected weights, the kept
checkpoint, and the names of the files left.

A harness that cannot fail proves nothing: `--in-place` trains with a save that writes in place, and must be caught.

    python -m tests.faults.kills KIND --points N [--seed S] [--in-place]      prints one JSON object
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from danlu import files
from danlu.data.loader import Shape
from danlu.randomness import stream
from danlu.tasks.task import Contrastive
from danlu.train import checkpoint
from danlu.train.loop import Training
from danlu.train.plan import Request
from danlu.train.session import CHECKPOINTS, METRICS, fit
from tests.faults.disk import Change, tap
from tests.faults.works import WORKS, Watching, Work, outcome

SEED = 9
NESTED = 6  # every sixth chain is of two to six kills
OUTCOME, EVENTS, ERROR = "outcome.json", "events.json", "error.txt"


@dataclass
class Report:
    """What came of one training's kills."""

    kinds: Counter[str] = field(default_factory=Counter)  # kind of event -> points
    nested: int = 0  # kills of a training that was going on from a kill
    failures: list[str] = field(default_factory=list)


class Killer:
    """Counts events and kills its process right before the one of number `last`; 0 kills nobody."""

    def __init__(self, last: int):
        self.last, self.events = last, list[str]()

    def meet(self, event: Change) -> None:
        self.events.append(event.kind)
        if len(self.events) == self.last:
            if self.last % 2:
                event.half()
            os.kill(os.getpid(), signal.SIGKILL)

    def told(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.meet(Change(kind, arguments, named))
            return real(*arguments, **named)

        return call


def train(work: Work, request: Request, place: Path, last: int) -> None:
    """In a child: train in `place`/out from what lies there, dying before event `last`; write down what came out."""
    killer, view = Killer(last), Watching()
    name = "vectors" if isinstance(request.task, Contrastive) else "loss"  # what is asked for each micro-batch
    setattr(request.task, name, killer.told("micro-batch", getattr(request.task, name)))
    request.task.measure = killer.told("evaluation", request.task.measure)  # type: ignore[method-assign]
    view.progress = killer.told("step", view.progress)  # type: ignore[method-assign]
    tap(killer.meet)
    result = fit(request, work.network(), place / "out", SEED, view)
    (place / EVENTS).write_text(json.dumps(killer.events))
    (place / OUTCOME).write_text(json.dumps(outcome(result, place / "out")))


def forked(act: Callable[[], None], place: Path) -> int:
    """Run `act` in a child process; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:  # noqa: BLE001  # whatever it is, it must not return into the server
            (place / ERROR).write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def begin(work: Work, place: Path) -> Path:
    """A folder with the plan, as a training finds it that was begun."""
    (place / "out").mkdir(parents=True)
    work.plan.write(place / "out")
    return place


def points(events: Sequence[str], count: int, seed: int) -> list[int]:
    """Numbers of events to die before: the kinds take turns, each in a random order, until there are enough."""
    random = stream(seed, "kills")
    queues = [[at + 1 for at, other in enumerate(events) if other == kind] for kind in sorted(set(events))]
    random.shuffle(queues)
    for queue in queues:
        random.shuffle(queue)
    chosen: list[int] = []
    while len(chosen) < min(count, len(events)):
        chosen += [queue.pop() for queue in queues if queue]
    return chosen[:count]


def chains(events: Sequence[str], count: int, seed: int) -> list[list[int]]:
    """The kills of each point; every sixth goes on to be killed again, one to five times."""
    random = stream(seed, "chains")
    found = [[first] for first in points(events, count, seed)]
    for number, chain in enumerate(found[::NESTED]):
        chain += [int(random.integers(1, len(events) // 2)) for _ in range(number % 5 + 1)]
    return found


def prove(work: Work, request: Request, room: Path, count: int, seed: int) -> Report:
    """Kill one training at `count` points."""
    straight = begin(work, room / "straight")
    if forked(lambda: train(work, request, straight, 0), straight):
        raise RuntimeError((straight / ERROR).read_text())
    wanted, events = json.loads((straight / OUTCOME).read_text()), json.loads((straight / EVENTS).read_text())
    report = Report()
    for chain in chains(events, count, seed):
        place = begin(work, room / "killed")
        report.kinds[events[chain[0] - 1]] += 1
        why, kills = _survives(work, request, place, chain, wanted)
        report.nested += kills - 1
        if why:
            report.failures.append(f"{work.name}, killed at {chain} ({events[chain[0] - 1]}): {why}")
        shutil.rmtree(place)
    return report


def _survives(work: Work, request: Request, place: Path, chain: list[int], wanted: Any) -> tuple[str, int]:
    """What went wrong ("" = nothing), and how often it was killed."""
    code, kills, why = 0, 0, ""
    for last in [*chain, 0]:
        code = forked(lambda last=last: train(work, request, place, last), place)  # type: ignore[misc]
        if code != -signal.SIGKILL:
            break
        kills += 1
        why = why or _redone(work, place)
    if code:
        return f"exit {code}\n{_read(place / ERROR)}", kills
    if not kills:
        return "it was not killed", 1
    found = json.loads((place / OUTCOME).read_text())
    different = [name for name in wanted if found[name] != wanted[name]]
    return f"differs in {different}" if different else why, kills


def _redone(work: Work, place: Path) -> str:
    """No more than `save_every` steps are lost; what ends a training that took its last step is not a step."""
    log = place / "out" / METRICS
    logged = sum(line.endswith("}\n") and '"lr"' in line for line in _read(log).splitlines(keepends=True))
    kept = [path.name for path in (place / "out" / CHECKPOINTS).glob("step-???????")]
    lost = logged - max((int(name[-7:]) for name in kept), default=0)
    return f"{lost} steps lost" if logged < work.steps and lost > work.plan.save_every else ""


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def warm_up(work: Work, request: Request) -> None:
    """What a first forward pass and a first update load, loaded before the forks."""
    training = Training(request.task, work.network(), request.train, work.plan, SEED)
    batch = request.task.corrupt(request.loader.train(0, 0, Shape(1, 1)), torch.Generator())
    for part, optimizer in training.optimizers.items():
        request.task.loss(training.net, batch, part)
        with torch.no_grad():
            optimizer.step({name: torch.zeros_like(training.masters.params[name]) for name in optimizer.names}, 0.1)


def in_place() -> None:
    """The negative control: as many trainers save. Files are written where they lie; the newest folder wins."""

    @contextlib.contextmanager
    def replacing(path: Path) -> Iterator[Any]:
        with files._open(path, "wb") as file:
            yield file
            files._fsync(file)

    @contextlib.contextmanager
    def staged(folder: Path) -> Iterator[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        files.seal(folder)

    files._replacing, files.staged = replacing, staged
    files.damage = lambda folder, deep=True: []  # type: ignore[assignment]
    checkpoint._lacking = lambda folder: ""  # type: ignore[assignment]
    files.sealed = lambda folder: [path.name for path in folder.iterdir()]  # type: ignore[assignment, return-value]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=WORKS)
    parser.add_argument("--points", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--in-place", action="store_true")
    asked = parser.parse_args()
    print(json.dumps(serve(asked)))


def serve(asked: argparse.Namespace) -> dict[str, Any]:
    """All trainings of a kind, each with its share of the points."""
    torch.set_num_threads(1)
    start, total, works = time.perf_counter(), Report(), WORKS[asked.kind]
    if asked.in_place:
        in_place()
    with tempfile.TemporaryDirectory() as room:
        for number, work in enumerate(works):
            request = work.request(Path(room) / "data")
            warm_up(work, request)
            share = asked.points * (number + 1) // len(works) - asked.points * number // len(works)
            one = prove(work, request, Path(room) / work.name, share, asked.seed + number)
            total.kinds += one.kinds
            total.nested += one.nested
            total.failures += one.failures
    seconds = round(time.perf_counter() - start, 1)
    return {"kinds": total.kinds, "nested": total.nested, "failures": total.failures, "seconds": seconds}


if __name__ == "__main__":
    main()
