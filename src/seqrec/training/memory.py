"""What becomes of freed memory. Nothing here needs torch."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Has glibc keep freed tensors for the next batch, instead of giving each back to the kernel and faulting
    its pages in again."""
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 1 << 29)  # M_TRIM_THRESHOLD
        except (OSError, AttributeError):
            return  # another C library: slower, not wrong
