"""What is said of a training step by step: its loss, its pace, its share of the machine's peak, and the time left."""

from danlu.messages import text
from danlu.tasks.task import Task
from danlu.train import log, pace
from danlu.train.events import Stepped
from danlu.train.plan import Plan

_RECENT = 50  # steps whose middle is the pace
_WAITING = 0.02  # share of the time for batches, from which on it is said


class Gauge:
    """Reads the steps of a training, one after another."""

    def __init__(self, plan: Plan, task: Task) -> None:
        self.plan, self.task = plan, task
        self.counted = task.modality().counted  # what its steps take so and so many of
        self.peak, self.share, self.recent = plan.peak_gflops, 0.0, list[float]()
        self.waited = self.stepped = 0.0  # seconds of this run: for batches, and in steps

    def read(self, event: Stepped) -> str:
        """The line of a step."""
        done = (event.step - 1) / self.plan.steps
        if (share := self.task.share(done)) != self.share:  # steps of another size had another pace
            self.share, self.recent = share, []
        self.recent = [*self.recent[1 - _RECENT :], event.seconds]
        self.waited, self.stepped = self.waited + event.waited, self.stepped + event.seconds
        return self._note(event, done)

    @property
    def facts(self) -> dict[str, object]:
        """What is kept of it."""
        return {"waiting_for_data": self.waiting, "counted": self.counted}

    @property
    def waiting(self) -> float:
        """The share of this run's steps in which the network waited for its batches."""
        return round(self.waited / max(self.stepped, 1e-9), 4)

    def _note(self, event: Stepped, done: float) -> str:
        recent, effort = sorted(self.recent), (self.task, self.plan.device, done)
        middle = recent[len(recent) // 2]
        left = (self.plan.steps - event.step) * pace.effort(*effort) / pace.effort(*effort, done)
        rate = self.plan.step_gflop * self.share / max(middle, 1e-9)
        self.peak = max(self.peak, rate)  # what is faster than the peak was shows that this was a busy moment's
        waiting = "" if self.waiting <= _WAITING else text("train.waiting", share=f"{self.waiting:.0%}")
        return text(
            "train.step", loss=f"{event.loss:.3f}", speed=f"{event.tokens / middle:,.0f}",
            counted=text(f"counted.{self.counted}"), share=f"{rate / max(self.peak, 1e-9):.0%}",
            low=log.clock(left * recent[len(recent) // 4]), high=log.clock(left * recent[-1 - len(recent) // 8]),
        ) + waiting  # fmt: skip
