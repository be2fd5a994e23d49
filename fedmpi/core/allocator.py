"""The memory of a process: freed, but not given back to the kernel."""

import contextlib
import ctypes

# From malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
# Weights of a model from which on saving memory is worth some work: 16 MiB of float32.
LARGE = 1 << 22


def keep_freed_memory():
    """Stop glibc from handing freed memory back to the kernel at every step.

    Activations and messages are freed in every step; handing them back costs 10 to 20 % of it.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
        # The largest value that glibc takes.
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
    except (OSError, AttributeError):
        # Another C library: slower, not wrong.
        pass


def give_back():
    """Hand all freed memory back to the kernel, as far as whole pages are free.

    For the end of work that is done once, such as building a model: its holes would stay.
    """
    # Another C library has no such function.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
