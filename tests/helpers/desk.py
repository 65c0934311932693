"""For tests of the desk's logic: rows by hand, and a main thread that is a queue."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable
from dataclasses import replace

from hypothesis import strategies as st

from fleetui.store.records import DeviceRow
from tests.helpers.wait import wait_until


class MainThread:
    """Where other threads post; the test runs what arrived, when it likes."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def post(self, task: Callable[[], object]) -> None:
        self._tasks.put(task)

    def run(self) -> int:
        done = 0
        while not self._tasks.empty():
            self._tasks.get()()
            done += 1
        return done

    def until(self, condition: Callable[[], object], what: str, timeout: float = 10.0) -> None:
        wait_until(lambda: (self.run(), condition())[1], timeout=timeout, what=what)


SITES = ("", "Berlin", "berlin", "oslo", "São Paulo")
STATUSES = ("online", "late", "offline", "unknown")
VERSIONS = ("", "1.9", "1.10", "1.0-rc1", "1.0", "2", "v3.1")
_share = st.one_of(st.just(math.nan), st.floats(0, 1, width=32))

device_rows = st.builds(
    DeviceRow,
    device=st.sampled_from([f"edge-{n}" for n in range(14)]),
    name=st.sampled_from(("", "press 2", "press 10", "Press 1", "=oven")),
    site=st.sampled_from(SITES),
    status=st.sampled_from(STATUSES),
    version=st.sampled_from(VERSIONS),
    model=st.sampled_from(("", "bearing", "vision")),
    tags=st.dictionaries(st.sampled_from(("line", "hall")), st.sampled_from(("1", "2", "10")), max_size=2),
    last_seen=st.sampled_from((0.0, 1000.0, 2000.5, 3000.0)),
    cpu=_share,
    temperature=st.one_of(st.just(math.nan), st.integers(-20, 110).map(float)),
    errors_per_s=st.sampled_from((0.0, 0.5, math.nan)),
    lost=st.integers(0, 3),
    memory_bytes=st.sampled_from((0, 1 << 30)),
    reasons=st.sampled_from(((), ("hot",), ("hot", "slow"))),
    last_error=st.text(max_size=3),
)


def same(one: DeviceRow | None, other: DeviceRow) -> bool:
    """Equal, where NaN equals NaN."""
    if one is None:
        return False

    def plain(row: DeviceRow) -> DeviceRow:
        nan = {n: None for n in row.__slots__ if isinstance(v := getattr(row, n), float) and math.isnan(v)}
        return replace(row, **nan)  # type: ignore[arg-type]

    return plain(one) == plain(other)
