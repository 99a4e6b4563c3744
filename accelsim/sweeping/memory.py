"""Freed memory that stays with the process, where Dask would have it returned to the system at once.

Dask starts its workers with MALLOC_TRIM_THRESHOLD_=65536 (its configuration, `distributed.nanny.pre-spawn-environ`). The C library then
fixes its other threshold, too, at 128 KiB: every larger array is mapped anew, zeroed page by page, and unmapped. A point makes hundreds
of arrays of about a megabyte, and the system took as long over their pages as the point itself. Any other value of the variable is
someone's choice and is left alone.
"""

import ctypes
import os

VARIABLE, DASK_SETS = "MALLOC_TRIM_THRESHOLD_", "65536"
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>."""
MMAP_BYTES = 4 * 1024 * 1024 * ctypes.sizeof(ctypes.c_long)
"""How far glibc raises the threshold by itself when nothing is set: DEFAULT_MMAP_THRESHOLD_MAX of mallopt(3) for 64 bits."""


def keep_freed_memory() -> bool:
    """Give this process the thresholds that glibc ends up with by itself, where Dask has set one; return whether it was so."""
    if os.environ.get(VARIABLE) != DASK_SETS:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, which reads no such variable
        return False
    return bool(mallopt(MMAP_THRESHOLD, MMAP_BYTES)) and bool(mallopt(TRIM_THRESHOLD, 2 * MMAP_BYTES))
