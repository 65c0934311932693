"""Times a compiled variant beside the framework its model came from: paired, interleaved, warmed.

``measure`` alternates short blocks of calls of either side in one process, so that whatever else the machine does
falls on both. A block lasts about a millisecond at least, and medians are taken over blocks. "Ours" is what an
application does: copy new numbers into the bound inputs, call, look at the bound outputs; ``fresh_us`` is the
dearer way that takes and gives arrays of its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError, WorkshopError
from fleetui.workshop.frontends.base import Peer
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.options import InputSpec

BLOCK_S = 2e-3


@dataclass(frozen=True, slots=True)
class Result:
    ours_us: float
    peer_us: float
    ratio: float
    threads: int
    rounds: int
    max_error: float
    fresh_us: float
    ours_min_us: float
    peer_min_us: float
    peer: str
    calls: int


def pair(
    ours: Callable[[], object], peer: Callable[[], object], *, rounds: int, block_s: float = BLOCK_S
) -> tuple[list[float], list[float]]:
    """Seconds a call, one figure for each block, taken in turns."""
    counts = []
    for call in (ours, peer):
        call()
        begin = time.perf_counter()
        call()
        once = time.perf_counter() - begin
        counts.append(max(1, round(block_s / max(once, 1e-7))))
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        order = ((0, ours), (1, peer)) if turn % 2 else ((1, peer), (0, ours))
        for which, call in order:
            count = counts[which]
            begin = time.perf_counter()
            for _ in range(count):
                call()
            took = (time.perf_counter() - begin) / count
            if turn:  # the first round warms
                found[which].append(took)
    return found


def feeds_for(ports: Mapping[str, tuple[tuple[int, ...], str]], seed: int = 7) -> dict[str, Array]:
    """Seeded inputs in the range that normalised data has; small integers for integer inputs."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for name, (shape, dtype) in ports.items():
        kind = np.dtype(dtype)
        if kind.kind == "f":
            feeds[name] = rng.standard_normal(shape).astype(kind)
        elif kind.kind == "b":
            feeds[name] = rng.random(shape) < 0.5
        else:
            feeds[name] = rng.integers(0, 8, shape).astype(kind)
    return feeds


def relative_error(have: Array, want: Array) -> float:
    """Largest difference, relative to the largest number wished for."""
    if want.size == 0:
        return 0.0
    a, b = have.astype(np.float64), want.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    gap = np.where(same, 0.0, np.abs(a - b))
    scale = float(np.max(np.abs(b[np.isfinite(b)]), initial=0.0)) or 1.0
    worst = float(np.max(gap))
    return float("inf") if np.isnan(worst) else worst / scale


def close_peer(peer: Peer | None) -> None:
    """End what a peer keeps running, if it is of that kind."""
    close = getattr(peer, "close", None)
    if close is not None:
        close()


def measure(
    folder: Path,
    variant: Mapping[str, Any],
    record: Mapping[str, Any],
    *,
    threads: int,
    rounds: int,
    against: str,
    rows: int = 0,
) -> Result:
    """One variant of a compiled folder beside its source framework."""
    from fleetui.common.runtime import Model, Pool
    from fleetui.workshop import inspect

    source = Path(record["source"]["path"])
    if not source.exists():
        raise ModelError(f"The model's source {source} is gone", "Put it back, or compile the model again")
    frontend = inspect.sniff(source)
    specs = tuple(InputSpec(i["name"], tuple(i["shape"]), i["dtype"]) for i in record["options"]["inputs"])
    peer = frontend.peer(source, specs, threads)
    if peer is None or (against and peer.name != against):
        wanted = against or frontend.title
        raise WorkshopError(
            f"{wanted} is not here to measure against",
            "Install it: pip install 'fleetui[peers]' (or its own extra)",
        )
    pool = Pool(threads) if threads > 1 else None
    try:
        model = Model.load(folder / variant["dir"], pool=pool)
        if rows and rows != model.rows and not model.any_rows:
            raise WorkshopError(
                f"This model takes {model.rows} row{'s' if model.rows > 1 else ''} a call, not {rows}",
                "Compile it with --batch any",
            )
        session = model.session(rows)
        feeds = feeds_for({p.name: (p.of(session.rows, model.rows), p.dtype) for p in model.ports})
        want = peer.run(feeds)
        have = model.run(feeds)
        error = max(relative_error(np.asarray(have[n]), np.asarray(want[n])) for n in want)
        bound = [(session.inputs[name], array) for name, array in feeds.items()]

        call = session.call

        def ours() -> None:
            for place, array in bound:
                place[...] = array
            call()

        inner: list[float] = []

        def other() -> None:
            peer.run(feeds)
            inner.append(getattr(peer, "seconds", 0.0))

        mine, theirs = pair(ours, other, rounds=rounds)
        if inner[-1]:  # a framework in a process of its own: its time is without the way there and back
            theirs = inner[2:]
        fresh, _ = pair(lambda: model.run(feeds), lambda: None, rounds=max(3, rounds // 3))
    finally:
        close_peer(peer)
        if pool is not None:
            pool.close()
    a, b = statistics.median(mine), statistics.median(theirs)
    return Result(
        ours_us=a * 1e6, peer_us=b * 1e6, ratio=b / a, threads=threads, rounds=rounds, max_error=error,
        fresh_us=statistics.median(fresh) * 1e6, ours_min_us=min(mine) * 1e6, peer_min_us=min(theirs) * 1e6,
        peer=f"{peer.name} {peer.version}", calls=rounds,
    )  # fmt: skip
