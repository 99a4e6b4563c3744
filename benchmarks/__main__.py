"""`python -m benchmarks [TABLE ...] [NETWORK ...]`: one thread, CPU time, alternating between the peers, medians."""

import os
import sys

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def main() -> None:
    """Print the tables."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # read when the libraries are loaded, which is why ours are imported below
    from benchmarks.commands import run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
