"""Memory of CPU ranks: what was freed is kept, because asking the system for it again costs more than computing."""

import ctypes

# Parameters of glibc's mallopt(3).
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Have malloc give nothing back to the system from now on. Does nothing where the C library is not glibc.

    A large tensor is otherwise mapped when it is made and unmapped when it is gone, and the system clears every page
    in between: decoding a video of the demo model takes a fifth less time without that. It costs memory, once: 40 demo
    videos of mixed sizes end at 1.2 GB instead of 1.0.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 64 << 20)):
        mallopt(parameter, value)
