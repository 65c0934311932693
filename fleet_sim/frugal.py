"""Before numpy is loaded: one BLAS thread.

The matrices here are small. More threads would wait for each other, and each takes megabytes.
"""

from __future__ import annotations

import os


def one_blas_thread() -> None:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
