"""Times functions of a shared object, in a process that may crash or hang without harm to anybody.

Reads one request (JSON) from standard input, writes a line before each trial's first call and one with the result
at the end. ctypes and numpy only, so that it starts quickly; it exits when its parent closes the pipe.

A trial is a list of calls, each a function name, its buffers and its extent. Trials are interleaved: every round
times each of them once. Constants are given ``copies`` times over and used in turn, so that they come from memory
as they do in a network that does not fit the cache.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ALIGN = 64


def aligned(nbytes: int, dtype: str, seed: int) -> np.ndarray[Any, np.dtype[Any]]:
    whole = np.zeros(nbytes + 2 * ALIGN, np.uint8)
    start = -whole.ctypes.data % ALIGN
    view = whole[start : start + nbytes].view(dtype)
    if view.dtype.kind == "f":
        view[...] = np.random.default_rng(seed).uniform(-0.5, 0.5, 997).astype(dtype)[np.arange(view.size) % 997]
    return view


def prepare(
    handle: Any, calls: list[dict[str, Any]], copies: int, shared: dict[int, Any]
) -> list[Callable[[], None]]:
    """One callable for each copy of the constants; ``shared`` keeps the buffers alive."""
    sets: list[Callable[[], None]] = []
    for copy in range(copies):
        bound = []
        for call in calls:
            pointers = []
            for number, nbytes, dtype, constant in call["buffers"]:
                key = number if not constant else number + 1_000_000 * (copy + 1)
                if key not in shared:
                    shared[key] = aligned(max(nbytes, 1) + -nbytes % 8, dtype, number)
                pointers.append(ctypes.c_void_p(shared[key].ctypes.data))
            function = getattr(handle, call["name"])
            function.restype = None
            bound.append((function, (*pointers, ctypes.c_int32(0), ctypes.c_int32(call["extent"]))))

        def run(bound: list[tuple[Any, tuple[Any, ...]]] = bound) -> None:
            for function, arguments in bound:
                function(*arguments)

        sets.append(run)
    return sets


def say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    request = json.loads(sys.stdin.readline())
    handle = ctypes.CDLL(request["library"])
    ready = []
    buffers: list[dict[int, Any]] = [{} for _ in request["trials"]]
    for index, trial in enumerate(request["trials"]):
        say({"start": index})
        sets = prepare(handle, trial["calls"], trial["copies"], buffers[index])
        for run in sets[:2]:
            run()
        ready.append(sets)
    best = [float("inf")] * len(ready)
    begin = time.perf_counter()
    rounds = 0
    while rounds < request["least"] or (
        time.perf_counter() - begin < request["seconds"] and rounds < request["most"]
    ):
        for index, sets in enumerate(ready):
            run = sets[rounds % len(sets)]
            start = time.perf_counter()
            run()
            took = time.perf_counter() - start
            best[index] = min(best[index], took)
        rounds += 1
    say({"best": best, "rounds": rounds})


if __name__ == "__main__":
    main()
