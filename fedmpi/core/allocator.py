"""The memory of a process: in huge pages, and freed without giving it back to the kernel."""

import contextlib
import ctypes
import os

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


def take_huge_pages():
    """Have torch ask for pages of 2 MB where a tensor is larger. Call it before torch is imported.

    Linux mostly waits to be asked; numpy asks by itself. Of a vector of 32 million values, fresh
    memory then costs a quarter, a step of AdamW less than half: it reads four vectors at once, more
    pages than the processor has places for.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@contextlib.contextmanager
def apart():
    """Inside the block each block of 1 MiB and more has pages of its own, and leaves no hole.

    For tensors that soon move elsewhere. Holes in huge pages would be filled again, unused.
    """
    _pages_of_their_own(1 << 20)
    try:
        yield
    finally:
        _pages_of_their_own(32 << 20)


def _pages_of_their_own(num_bytes):
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, num_bytes)


def give_back():
    """Hand all freed memory back to the kernel, as far as whole pages are free.

    For the end of work that is done once, such as building a model: its holes would stay.
    """
    # Another C library has no such function.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
