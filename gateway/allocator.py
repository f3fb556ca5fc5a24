"""How the C library's allocator keeps freed memory: pixels and bodies of large images are to go back to the system."""

import ctypes

# malloc.h of glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MEGABYTE = 1 << 20


def give_back_large_blocks(megabytes: int) -> None:
    """Blocks of so many and more are mapped, so that freeing one returns it; all threads share one heap. glibc only.

    By itself glibc raises its threshold with every large block that is freed, and has a heap for each thread. Up to 8
    MB stay at the end of the heap: with less, each task would ask the system for the same pages again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, megabytes * _MEGABYTE)
        mallopt(_TRIM_THRESHOLD, 8 * _MEGABYTE)
        mallopt(_ARENA_MAX, 1)
