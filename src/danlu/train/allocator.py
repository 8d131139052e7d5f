"""glibc's allocator, set for training: memory that a step frees is kept for the next, on huge pages.

As it comes, glibc asks the kernel for every large tensor and gives it back when it is freed, and the kernel clears the
pages each time. Training asks for the same sizes in every step: clearing was 4 to 18 % of its time, by machine.
"""

import contextlib
import ctypes
import sys
from functools import cache

# Numbers of mallopt(3) in <malloc.h> and of madvise(2) in <sys/mman.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_HUGEPAGE = 14
_HUGE = 2**21  # bytes of a huge page
_RESERVED = 2**30  # addresses, not memory, that are laid on huge pages; less than what is trimmed


@cache
def tune() -> bool:
    """Keep freed memory in this process from now on; False where the C library is not glibc."""
    libc = _glibc()
    if libc is None:
        return False
    libc.mallopt(_MMAP_MAX, 0)  # all sizes from the heap
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_TOP_PAD, 2**26)  # the heap grows by 64 MiB
    _on_huge_pages(libc)
    return True


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.gnu_get_libc_version  # noqa: B018  musl has a mallopt that does nothing
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        return libc
    return None


def _on_huge_pages(libc: ctypes.CDLL) -> None:
    """Let the heap end behind a stretch of untouched addresses, and ask for huge pages there."""
    start = libc.malloc(_RESERVED)
    if start is not None:
        first = -(-start // _HUGE) * _HUGE
        libc.madvise(first, start + _RESERVED - first, _HUGEPAGE)
        libc.free(start)
