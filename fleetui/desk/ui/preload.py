"""Loading on a thread of its own what the main thread will want soon: pyqtgraph takes half a second to import.

Whoever needs it before it is there waits for the import lock, as if they had imported it themselves. Importing
makes classes, not widgets, so it may happen beside the main thread.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading

log = logging.getLogger("fleetui.desk")

CHARTS = "fleetui.desk.ui.charts.timechart"


def charts() -> None:
    """Once; later calls do nothing."""
    if CHARTS not in sys.modules:
        threading.Thread(target=_load, args=(CHARTS,), name="preload", daemon=True).start()


def _load(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError:
        log.exception("%s cannot be loaded", module)  # the page will say so when it is needed
