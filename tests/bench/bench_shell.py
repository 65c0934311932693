"""How quick the window is: start-up to the first frame, page switch, theme switch, palette, overview.

Start-up is measured from outside, from the start of the process to the first painted frame; the rest inside one
process on the offscreen platform over a real store with 10,000 devices.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HERE))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

START = """
import sys, time
from fleetui.desk.ui import system; system.check()
from fleetui.desk.ui.main import DeskApplication, Instance, make_application
instance = Instance.open(sys.argv[1], overrides={"station.own": False})
app = make_application()
desk = DeskApplication(app, instance)
def painted():
    print(time.monotonic(), time.process_time(), flush=True)
    desk.close()
desk.window.first_frame.connect(painted)
desk.ended.connect(app.quit)
desk.show(sys.argv[2])
app.exec()
desk.dispose()
"""


def figure(name: str, value: float, unit: str, bar: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": value <= bar}


def start_up(rounds: int) -> list[dict[str, Any]]:
    """Warm: the first round fills the file caches and is thrown away."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for page in ("overview", "devices"):
            walls, processor = [], []
            for _ in range(rounds + 1):
                began = time.monotonic()
                done = subprocess.run(
                    [sys.executable, "-c", START, folder, page],
                    capture_output=True, text=True, check=True, timeout=120, cwd=HERE,
                )  # fmt: skip
                at, used = (float(word) for word in done.stdout.split())
                walls.append(at - began)
                processor.append(used)
            figures.append(figure(f"first frame, {page} (median)", statistics.median(walls[1:]), "s", 1.5))
            figures.append(figure(f"first frame, {page}, processor", statistics.median(processor[1:]), "s", 1.5))
    return figures


def timed(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Milliseconds of each work in turn, painting included, the first round thrown away."""
    from PySide6.QtWidgets import QApplication

    app = QApplication.instance()
    assert app is not None
    taken = []
    for turn in range(rounds + 1):
        for work in works:
            began = time.perf_counter()
            work()
            app.processEvents()
            if turn:
                taken.append(1000 * (time.perf_counter() - began))
    return taken


def p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def inside(devices: int, rounds: int) -> list[dict[str, Any]]:
    from PySide6.QtCore import QCoreApplication, QEvent
    from PySide6.QtWidgets import QApplication

    from fleetui.desk.ui.window import MainWindow
    from tests.helpers.qt import desk_context

    app = QApplication([])
    figures = []
    with tempfile.TemporaryDirectory() as folder, desk_context(Path(folder), app, devices=devices) as context:
        window = MainWindow(context)
        window.resize(1280, 800)
        window.show()
        for page in window.page_ids:
            context.navigate(page)
            app.processEvents()
        switches = timed(rounds, *(lambda page=page: context.navigate(page) for page in window.page_ids))
        figures.append(figure("page switch (p95)", p95(switches), "ms", 100))
        context.navigate("overview")
        refreshes = timed(rounds, window.page.refresh)
        figures.append(figure(f"overview over {devices:,} devices (p95)", p95(refreshes), "ms", 50))
        themes = timed(rounds, *(lambda mode=mode: context.theme.set_mode(mode) for mode in ("dark", "light")))
        figures.append(figure("theme switch (p95)", p95(themes), "ms", 500))
        window.palette_.open()
        letters = ["e", "ed", "edg", "edge", "edge-0", "edge-00", "line 1", "press 42", "berlin", "dark"]
        keys = timed(rounds, *(lambda text=text: window.palette_.field.setText(text) for text in letters))
        figures.append(figure(f"a letter in the palette, {devices:,} devices (p95)", p95(keys), "ms", 50))
        window.palette_.dismiss()
        while not context.operations.idle:
            app.processEvents()
        window.allow_close()
        window.close()
        window.deleteLater()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        import PySide6
    except ImportError as error:
        print(f"The window's bench needs PySide6: {error}.", file=sys.stderr)
        return 2
    figures = start_up(2 if args.quick else 5) + inside(10_000, 5 if args.quick else 20)
    versions = {"python": platform.python_version(), "qt": PySide6.__version__}
    if args.json:
        print(json.dumps({"bench": "shell", "versions": versions, "figures": figures}))
    else:
        for one in figures:
            mark = "ok " if one["holds"] else "BAD"
            print(f"{mark} {one['name']:<48} {one['value']:>9.2f} {one['unit']:<3} (bar {one['bar']:g})")
    return 0 if all(one["holds"] for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
