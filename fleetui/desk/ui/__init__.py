"""Qt: theme, widgets, charts, pages, the main window. Nothing outside this package knows Qt.

PySide6 6.12.0 is built as if ``None``, ``True`` and ``False`` were immortal, which they are from Python 3.12 on; on
3.10 and 3.11 every Qt call that returns nothing takes one of None's references away, and every signal that is
emitted one of True's, until the interpreter aborts ("deallocating None") after a few thousand calls.
``_keep_constants`` gives them more than can ever be lost. Measured: 6.10.3 and 6.11.2 do not do it, 6.12.0 does.
"""

from __future__ import annotations

import sys


def _keep_constants() -> None:
    import ctypes

    # The reference count is the first word of an object; 2**40 last 34 years at a thousand calls a second.
    for constant in (None, True, False):
        ctypes.c_ssize_t.from_address(id(constant)).value += 1 << (40 if sys.maxsize > 2**32 else 28)


if sys.implementation.name == "cpython" and sys.version_info < (3, 12):
    _keep_constants()
