"""Memory that a training or attack step frees stays with the process, ready for the next step."""

import ctypes

_MOST_MAPPED, _TRIM_THRESHOLD = -4, -1
"""M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Tell glibc not to hand freed blocks back to the system; whether that was possible.

    Every step frees tensors of several MB and asks for the same again. By default glibc returns them in between, and
    the system clears each page anew: up to a fifth of the time of a small network on a CPU, now more, now less
    (`benchmarks/attack_speed.py`). Peak memory is the same; in between, the process keeps what it once had.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library: macOS, musl, Windows
        return False
    return bool(mallopt(_MOST_MAPPED, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
