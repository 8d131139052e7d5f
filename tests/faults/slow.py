"""The command with one place made slow, so that a signal can be sent while it is there.

    python -m tests.faults.slow PLACE SECONDS run recipe.toml ...

When it comes to the place it writes the file `there` beside the recipe. SECONDS is how long it stays each time, in
Python; 0 stays for good, outside Python, where no handler of Python's is called.
"""

import ctypes
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from danlu import cli

PLACES = {
    "prepare": "danlu.data.store RowWriter.add", "encode": "danlu.data.columns ColumnWriter.add",
    "duplicates": "danlu.data.dedup find", "training": "danlu.tasks.language_modeling LanguageModeling.loss",
    "save": "danlu.train.checkpoint save", "write": "danlu.files write_tensors",
    "evaluate": "danlu.stages.evaluate samples", "compress": "danlu.stages.compress compressed",
}  # fmt: skip


def main() -> int:
    place, seconds, *arguments = sys.argv[1:]
    module, _, path = PLACES[place].partition(" ")
    *outer, name = path.split(".")
    home: Any = importlib.import_module(module)
    for part in outer:
        home = getattr(home, part)
    beside = Path(arguments[1]).parent
    setattr(home, name, _slow(getattr(home, name), float(seconds), beside, place == "training"))
    return cli.main(arguments)


def _slow(real: Callable[..., Any], seconds: float, beside: Path, training: bool) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        with open(beside / "calls", "a") as log:
            log.write("call\n")
        if not training or any(beside.glob("runs/store/pretrain-*.partial/metrics.jsonl")):  # past the plan
            (beside / "there").touch()
            time.sleep(seconds) if seconds else _stuck()
        return real(*arguments, **named)

    return call


def _stuck() -> None:
    """Wait for a lock that is never freed: the system call goes on after any signal."""
    lock = ctypes.create_string_buffer(64)  # all zero: PTHREAD_MUTEX_INITIALIZER
    system = ctypes.CDLL(None)
    system.pthread_mutex_lock(lock)
    system.pthread_mutex_lock(lock)


if __name__ == "__main__":
    sys.exit(main())
