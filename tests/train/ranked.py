"""Ranks of a training as forked processes: torch is imported once, so that eight of them take a second."""

import json
import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # sharding loads it: once here, not for seconds in every child

from danlu import ranks as danlu_ranks


def ranks(count: int, folder: Path, work: Callable[[], Any]) -> list[Any]:
    """What `work` returns (JSON data) on each of `count` ranks; fails with the traceback of the first that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    port = danlu_ranks.free_port()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which the children do not use
        children = [_fork(rank, count, port, folder, work) for rank in range(count)]
    for child in children:
        os.waitpid(child, 0)
    failed = [path.read_text() for path in sorted(folder.glob("failed-*"))]
    assert not failed, failed[0]
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(count)]


def _fork(rank: int, count: int, port: int, folder: Path, work: Callable[[], Any]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        os.environ |= danlu_ranks.environment(rank, count, port)
        torch.set_num_threads(1)
        (folder / f"rank-{rank}.json").write_text(json.dumps(work()))
    except BaseException:  # noqa: BLE001, whatever it is: the parent shows it
        (folder / f"failed-{rank}").write_text(traceback.format_exc())
    finally:
        os._exit(0)
