"""The desk under load: a real store written by another process, read by the feed, drawn in the real window.

Main-thread figures are *busy spans*: how late a timer of a millisecond comes, which is how long a frame would have
to wait. Spans below a millisecond are left out, so that idle time does not flatter the percentiles. The window is
offscreen at 1280×800, on the devices page with its drawer open, sorted by a column that changes; it is scrolled and
typed into while 1,000 devices change a second.

Exit 0: all bars hold; 1: one falls short; 2: could not run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import fleetui  # noqa: E402 - found by the line above
from fleetui.common.domain.clock import SystemClock  # noqa: E402
from fleetui.store import devices, ingest  # noqa: E402
from fleetui.store.records import METRICS, Batch, DeviceRow, Sample  # noqa: E402
from fleetui.store.store import Store  # noqa: E402
from tests.helpers.qt import device_row  # noqa: E402

CHANGES_PER_S = 1000
BATCH_S = 0.2
BAR_START_S = 1.5
BAR_FRAME_MS = 50.0
BAR_P95_MS = 16.0
BAR_ORDER_MS = 20.0
WORTH_MS = 1.0


def fill(url: str, count: int) -> None:
    """So many devices, and an hour of figures for the one that is opened."""
    chance = random.Random(1)
    now = SystemClock().now()
    rows = [device_row(n, chance, now) for n in range(count)]
    with Store.open(url, clock=SystemClock()) as store:
        for first in range(0, count, 5000):
            part = {row.device: row for row in rows[first : first + 5000]}
            store.write(lambda c, part=part: ingest.write(c, Batch(devices=part)))  # type: ignore[misc]
        values = tuple(0.5 if metric in {"cpu", "memory"} else 10.0 for metric in METRICS)
        samples = [Sample(rows[3].device, now - 3600 + 10 * n, values) for n in range(360)]
        store.write(lambda c: ingest.write(c, Batch(samples=samples)))


# ------------------------------------------------------------------------------------------------ the other process


def write_changes(url: str) -> int:
    """What a station does: a batch of changed rows five times a second, until stdin ends."""
    chance = random.Random(2)
    clock = SystemClock()
    with Store.open(url, clock=clock) as store:
        with store.read() as connection:
            rows = {row.device: row for row in devices.all(connection)}
        names = list(rows)
        per_batch = round(CHANGES_PER_S * BATCH_S)
        os.set_blocking(0, False)
        due = clock.monotonic()
        sent = 0
        while True:
            try:
                if os.read(0, 100) == b"":
                    break
            except BlockingIOError:
                pass
            changed: dict[str, DeviceRow] = {}
            for name in chance.sample(names, min(per_batch, len(names))):
                row = rows[name]
                rows[name] = changed[name] = replace(
                    row,
                    last_seen=clock.now(),
                    cpu=min(1.0, max(0.0, row.cpu + chance.gauss(0, 0.03))),
                    memory=min(1.0, max(0.0, row.memory + chance.gauss(0, 0.01))),
                    temperature=row.temperature + chance.gauss(0, 0.5),
                    rows=row.rows + 30,
                    rows_per_s=max(0.0, row.rows_per_s + chance.gauss(0, 1)),
                    latency_p99=max(1.0, row.latency_p99 + chance.gauss(0, 0.5)),
                    status="online" if chance.random() < 0.98 else "late",
                )
            store.write(lambda c, changed=changed: ingest.write(c, Batch(devices=changed)))  # type: ignore[misc]
            sent += len(changed)
            due += BATCH_S
            wait = due - clock.monotonic()
            if wait > 0:
                time.sleep(wait)  # noqa: TID251 - a load generator keeps a pace
    print(json.dumps({"sent": sent}))
    return 0


class Writer:
    """The other process, as long as the block lasts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.sent = 0

    def __enter__(self) -> Self:
        command = [sys.executable, __file__, "--write", self._url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.stdout is not None
        said = self._process.stdout.read()
        self._process.stdout.close()
        if self._process.wait(20) == 0:
            self.sent = int(json.loads(said)["sent"])


# ------------------------------------------------------------------------------------------------ the window


class Spans:
    """How long the main thread was busy at a stretch: how late a timer of a millisecond is.

    A frame that falls due meanwhile waits as long.
    """

    def __init__(self) -> None:
        from PySide6.QtCore import Qt, QTimer

        self._last = time.perf_counter()
        self.found: list[float] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(1)

    def _tick(self) -> None:
        now = time.perf_counter()
        span = 1000 * (now - self._last) - 1.0
        self._last = now
        if span >= WORTH_MS:
            self.found.append(span)

    def restart(self) -> None:
        self._last = time.perf_counter()
        self.found = []

    def take(self) -> list[float]:
        """Those worth counting, since the last time."""
        found, self.found = self.found, []
        return found


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


class Desk:
    """The application as ``main.py`` makes it, without children: the station is the other process."""

    def __init__(self, base: Path) -> None:
        from PySide6.QtWidgets import QApplication

        from fleetui.desk.app.instance import Instance
        from fleetui.desk.ui.application import DeskApplication
        from fleetui.desk.ui.main import make_application

        self.app = QApplication.instance() or make_application()
        self.instance = Instance.open(base, None, {"station.own": False, "desk.resort_s": 2.0})
        self.desk = DeskApplication(self.app, self.instance)  # type: ignore[arg-type]
        self.desk.window.resize(1280, 800)
        self.spans = Spans()

    def run(self, seconds: float, act: Callable[[float], None] | None = None, every_s: float = 0.1) -> None:
        """The event loop for so long; ``act`` is called now and then, as a person's hand would."""
        from PySide6.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        began = time.perf_counter()
        ticker = QTimer()
        ticker.setInterval(round(1000 * every_s))
        if act is not None:
            ticker.timeout.connect(lambda: act(time.perf_counter() - began))
            ticker.start()
        QTimer.singleShot(round(1000 * seconds), loop.quit)
        loop.exec()
        ticker.stop()

    def until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> float:
        from PySide6.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        began = time.perf_counter()
        ticker = QTimer()
        ticker.timeout.connect(lambda: (condition() or time.perf_counter() - began > timeout_s) and loop.quit())
        ticker.start(10)
        loop.exec()
        ticker.stop()
        if not condition():
            raise RuntimeError("the window did not get there")
        return time.perf_counter() - began

    def close(self) -> None:
        from PySide6.QtCore import QEventLoop

        loop = QEventLoop()
        self.desk.ended.connect(loop.quit)
        self.desk.close()
        loop.exec()
        self.desk.dispose()


Figures = list[dict[str, Any]]


def figure(name: str, value: float, unit: str, bar: float | None) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": unit, "bar": bar, "holds": bar is None or value <= bar}


def measure(count: int, seconds: float, folder: Path) -> Figures:
    base = folder / f"base-{count}"
    base.mkdir()
    url = f"sqlite:///{base / 'fleetui.db'}"
    fill(url, count)
    desk = Desk(base)
    figures: Figures = []
    label = f"{count:,} devices"
    try:
        desk.desk.show("devices")
        desk.spans.restart()  # making the window is measured as start-up
        loaded = desk.until(lambda: len(desk.desk.context.table) == count and desk.desk.context.caught_up)
        desk.run(0.3)
        figures.append(figure(f"{label}: all in the table after", loaded, "s", None))
        spans = desk.spans.take()
        figures.append(
            figure(f"{label}: longest span while they are read", max(spans, default=math.nan), "ms", None)
        )
        page = desk.desk.window.page
        figures += orders(page, label, bar=BAR_ORDER_MS if count <= 10_000 else None)
        page.show_filter("")
        page.model.set_sort("cpu", descending=True)
        page.open_device("edge-00003")
        desk.run(2.5)  # charts are loaded and drawn
        desk.spans.take()
        drawn = desk.desk.feed.counters.rows_drawn
        with Writer(url) as writer:
            desk.until(lambda: desk.desk.feed.counters.rows_drawn > drawn)
            desk.run(1.0)
            desk.spans.take()
            before, began = desk.desk.feed.counters.rows_drawn, time.perf_counter()
            desk.run(seconds)
            watching = desk.spans.take()
            desk.run(seconds / 2, lambda t: scroll(page, t))
            scrolling = desk.spans.take()
            desk.run(seconds / 2, lambda t: type_filter(page, t), every_s=0.25)
            typing = desk.spans.take()
            rate = (desk.desk.feed.counters.rows_drawn - before) / (time.perf_counter() - began)
        for what, found in (("watching", watching), ("scrolling", scrolling), ("typing", typing)):
            figures += [
                figure(f"{label}, {what}: span p50", quantile(found, 0.5), "ms", None),
                figure(f"{label}, {what}: span p95", quantile(found, 0.95), "ms", BAR_P95_MS),
                figure(f"{label}, {what}: longest span", max(found, default=math.nan), "ms", BAR_FRAME_MS),
            ]
        lost = desk.desk.feed.counters
        figures.append(figure(f"{label}: rows drawn a second", rate, "1/s", None))
        figures.append(figure(f"{label}: events not shown", lost.events_skipped, "", 0))
        figures.append(figure(f"{label}: rows written", writer.sent, "", None))
    finally:
        desk.close()
    return figures


def scroll(page: Any, at: float) -> None:
    bar = page.table.verticalScrollBar()
    bar.setValue(bar.value() + 90 if math.sin(at) > -0.7 else 0)


def type_filter(page: Any, at: float) -> None:
    text = "status:online and memory>40%"
    length = int(at / 0.25) % (len(text) + 1)
    page.filter.setText(text[:length])
    page.filter._apply()


def orders(page: Any, label: str, *, bar: float | None) -> Figures:
    """Model and view together, from the wish to the rows in their new places; then the table is drawn."""
    from PySide6.QtWidgets import QApplication

    model = page.model

    def timed(act: Callable[[], object]) -> tuple[float, float]:
        began = time.perf_counter()
        act()
        changed = time.perf_counter()
        QApplication.processEvents()
        return 1000 * (changed - began), 1000 * (time.perf_counter() - began)

    figures: Figures = []
    sorts: dict[str, list[tuple[float, float]]] = {}
    filters: dict[str, list[tuple[float, float]]] = {}
    for _ in range(7):
        for name in ("cpu", "name", "model.version", "seen", "site", "id"):
            sorts.setdefault(name, []).append(
                timed(lambda name=name: model.set_sort(name, descending=name == "cpu"))
            )
        for text in ("status:offline", "press 12", "site:berlin and memory>80%", "model.version<2", "seen<30s", ""):
            filters.setdefault(text or "(none)", []).append(timed(lambda text=text: page.show_filter(text)))
    for kind, found in (("sort", sorts), ("filter", filters)):
        medians = {name: statistics.median(a for a, _ in runs) for name, runs in found.items()}
        worst = max(medians, key=lambda name: medians[name])
        first = max(runs[0][0] for runs in found.values())
        drawn = max(statistics.median(b for _, b in runs) for runs in found.values())
        figures.append(figure(f"{label}: {kind} by {worst} (slowest, median of 7)", medians[worst], "ms", bar))
        figures.append(figure(f"{label}: slowest first {kind}", first, "ms", None))
        figures.append(figure(f"{label}: slowest {kind} until drawn", drawn, "ms", None))
    return figures


# ------------------------------------------------------------------------------------------------ start-up


def start_up(base: str) -> int:
    """In a process of its own: says when the first frame is on the screen, then ends."""
    from fleetui.desk.app.instance import Instance
    from fleetui.desk.ui.application import DeskApplication
    from fleetui.desk.ui.main import make_application

    instance = Instance.open(base, None, {"station.own": False})
    app = make_application()
    desk = DeskApplication(app, instance)

    def painted() -> None:
        print("painted", flush=True)
        desk.close()

    desk.window.first_frame.connect(painted)
    desk.ended.connect(app.quit)
    desk.show("overview")
    app.exec()
    desk.dispose()
    return 0


def starts(folder: Path, rounds: int) -> Figures:
    base = folder / "start"
    base.mkdir()
    fill(f"sqlite:///{base / 'fleetui.db'}", 200)
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, __file__, "--start", str(base)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        took = time.perf_counter() - began
        process.stdout.read()
        process.stdout.close()
        if process.wait(30) != 0 or line.strip() != b"painted":
            raise RuntimeError("the desk did not start")
        times.append(took)
    warm = times[1:]
    return [
        figure("start to the first page, median", statistics.median(warm), "s", BAR_START_S),
        figure("start to the first page, slowest", max(warm), "s", None),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of a minute, 10,000 devices only")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--write", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--start", metavar="BASE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        return write_changes(args.write)
    if args.start:
        return start_up(args.start)
    try:
        import pyqtgraph
        import PySide6
    except ImportError as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-desk-") as name:
        folder = Path(name)
        try:
            figures = starts(folder, 3 if args.quick else 7)
            figures += measure(10_000, 6 if args.quick else 30, folder)
            if not args.quick:
                figures += measure(50_000, 15, folder)
        except (OSError, RuntimeError) as error:
            print(f"cannot run: {error}", file=sys.stderr)
            return 2
    result = {
        "bench": "desk",
        "versions": {
            "fleetui": fleetui.__version__,
            "python": platform.python_version(),
            "pyside6": PySide6.__version__,
            "pyqtgraph": pyqtgraph.__version__,
        },
        "figures": figures,
    }
    if args.json:
        print(json.dumps(result))
    else:
        for one in figures:
            bar = (
                ""
                if one["bar"] is None
                else f"  (bar {one['bar']:g}, {'holds' if one['holds'] else 'FALLS SHORT'})"
            )
            print(f"{one['name']:<62} {one['value']:>10.2f} {one['unit']:<4}{bar}")
    return 0 if all(one["holds"] for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
