"""Before any training: the processor time of `--help`, and megabytes of text encoded per second of one thread.

danlu's `--help` against that of transformers and litgpt where their commands are installed beside it; danlu's own
encoding against that of tokenizers with the same merges (equal ids are checked first).

    python benchmarks/front_door.py [--rounds 7] [--peers FOLDER]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import results

COMMANDS = ("danlu", "transformers", "litgpt")


def help_times(rounds: int, peers: Path) -> dict[str, float]:
    """Median milliseconds of processor time of `COMMAND --help`, the commands in turn."""
    places = [Path(python).parent for python in (sys.executable, results.python(peers))]
    found = {name: place / name for name in COMMANDS for place in reversed(places) if (place / name).exists()}
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, command in found.items():
            times[name].append(_processor_time([str(command), "--help"]))
    return {name: round(1000 * statistics.median(taken), 1) for name, taken in times.items()}


def _processor_time(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def encode_rates(rounds: int) -> dict[str, float]:
    """MB/s of one thread with 8192 tokens learned from the text itself: this Python's own source files.

    Raises:
        RuntimeError: the two do not give the same ids.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    from danlu.modalities.text import Text

    texts = [path.read_text("utf-8", "ignore") for path in sorted(Path(os.__file__).parent.glob("*.py"))[:120]]
    processor = Text.fit(texts, type="bpe", vocab_size=8192)
    with tempfile.TemporaryDirectory() as room:
        processor.save(Path(room))
        theirs = Tokenizer.from_file(str(Path(room) / "tokenizer.json"))
    if any(processor.encode(text) != theirs.encode(text).ids for text in texts):
        raise RuntimeError("the ids differ")
    size = sum(len(text.encode()) for text in texts) / 1e6
    encoders: dict[str, Callable[[str], Any]] = {"danlu": processor.encode, "tokenizers": theirs.encode}
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(rounds):
        for name, encode in encoders.items():
            start = time.perf_counter()
            for text in texts:
                encode(text)
            times[name].append(time.perf_counter() - start)
    return {name: round(size / statistics.median(taken), 2) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", type=Path, default=Path(os.environ.get("DANLU_PEERS", "peers")))
    options, _ = parser.parse_known_args()  # `make bench` hands the same words to every script
    table = {"help": help_times(options.rounds, options.peers), "encode": encode_rates(options.rounds)}
    print(json.dumps(table, indent=1))
    results.keep("front_door", table)


if __name__ == "__main__":
    main()
