"""The memory of a process: freed, but not given back to the kernel; in huge pages."""

import contextlib
import ctypes

# From malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
# From sys/mman.h, and the bytes of a page.
MADV_HUGEPAGE = 14
PAGE = 4096
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


def in_huge_pages(tensor):
    """The new ``tensor``, in pages of 2 MB where Linux has some; for large ones on the host.

    Linux mostly waits to be asked. A step of AdamW reads four vectors at once, more pages of 4 KiB
    than the processor has places for. Call it before the tensor is touched.
    """
    if tensor.device.type != "cpu" or tensor.numel() < LARGE:
        return tensor
    # The first whole page.
    start = -(-tensor.data_ptr() // PAGE) * PAGE
    num_bytes = tensor.data_ptr() + tensor.nbytes - start
    # Without it the tensor is slower, not wrong.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(num_bytes), MADV_HUGEPAGE)
    return tensor


def give_back():
    """Hand all freed memory back to the kernel, as far as whole pages are free.

    For the end of work that is done once, such as building a model: its holes would stay.
    """
    # Another C library has no such function.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
