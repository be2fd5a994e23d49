"""How a process keeps the memory that it has."""

import ctypes


def keep_freed_memory():
    """Stop glibc from handing freed activations and messages back to the kernel at every step, which costs a step
    10 to 20 %."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 1 << 30)        # M_TRIM_THRESHOLD
        libc.mallopt(-3, 32 << 20)       # M_MMAP_THRESHOLD, the largest that glibc takes
    except (OSError, AttributeError):    # another C library: slower, not wrong
        pass
