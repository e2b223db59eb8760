"""Memory maps that are resident only where they are worked on."""

import mmap

import numpy as np

__all__ = ["give_back_pages"]


def give_back_pages(array: np.ndarray) -> None:
    """Let go of the pages of a memory map that were read or written.

    They stay in the system's cache, and go to the file from there; they no longer count as memory of this process.
    Nothing happens to other arrays, or where the system cannot do it.

    Examples
    --------
    >>> give_back_pages(np.ones(3))
    """
    pages = getattr(array, "_mmap", None)
    # Of a copy-on-write map ("c") this would lose what was written.
    if isinstance(pages, mmap.mmap) and getattr(array, "mode", "c") != "c" and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
