"""The allocator keeps what a step frees, in the process that asked for it."""

import subprocess
import sys

import pytest

COUNT = """
import resource, torch
from danlu.train import allocator
{tune}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**24)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_freed_memory_is_found_again_without_new_pages() -> None:
    as_it_comes, tuned = (_faults(tune) for tune in ("", "assert allocator.tune()"))
    assert as_it_comes > 20 * 16  # at least every huge page of every tensor anew
    assert tuned < as_it_comes / 10


def _faults(tune: str) -> int:
    made = subprocess.run([sys.executable, "-c", COUNT.format(tune=tune)], capture_output=True, text=True, check=True)
    return int(made.stdout)
