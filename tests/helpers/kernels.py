"""Compiles kernels into a shared object of their own, calls them with numpy arrays, compares with the reference.

``check(graph, feeds)`` partitions a graph, lowers every group by the rule table (or by the rules given), runs the
kernels one by one and compares every output with ``graph.ir.run``. Parallel ranges are called in several pieces,
in a shuffled order. Nothing is planned: every value has a buffer of its own, unless a placement says otherwise.
"""

from __future__ import annotations

import ctypes
import random
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np

from fleetui.workshop.codegen import raw
from fleetui.workshop.graph.ir import Array, Graph, Value, numpy_dtype, run
from fleetui.workshop.kernel import Group, Kernel, Packed, Placement, Temporary
from fleetui.workshop.schedules import fuse, rules
from fleetui.workshop.schedules.rules import Context, Rule
from fleetui.workshop.target import Target
from fleetui.workshop.targets.host import host

TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-5, "float64": 1e-10}


class Library:
    """Kernels of equal key are compiled once. Use as a context manager, or ``close`` it."""

    def __init__(self, kernels: Sequence[Kernel], target: Target | None = None) -> None:
        self.target = target or host()
        self.names = {key: f"k{index}" for index, key in enumerate(dict.fromkeys(k.key for k in kernels))}
        self.folder = tempfile.TemporaryDirectory()
        first = list({kernel.key: kernel for kernel in reversed(kernels)}.values())[::-1]
        first.sort(key=lambda kernel: int(self.names[kernel.key][1:]))
        module = raw.lower(first, [self.names[kernel.key] for kernel in first], self.target)
        path = Path(self.folder.name)
        raw.object_file(module, self.target, str(path / "k.o"))
        subprocess.run(
            ["gcc", "-shared", "-o", str(path / "k.so"), str(path / "k.o"), "-lm"], check=True, capture_output=True
        )
        self.handle = ctypes.CDLL(str(path / "k.so"))
        self.module = module

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.folder.cleanup()

    def function(self, kernel: Kernel) -> Callable[..., None]:
        """``f(pointers…, lo, hi)``"""
        found = getattr(self.handle, self.names[kernel.key])
        found.argtypes = [*[ctypes.c_void_p] * len(kernel.args), ctypes.c_int32, ctypes.c_int32]
        found.restype = None
        return found  # type: ignore[no-any-return]  # ctypes' functions have no types

    def call(self, kernel: Kernel, pointers: Sequence[int], seed: int | None = None) -> None:
        """The whole range at once, or with a seed in random pieces, out of order."""
        function = self.function(kernel)
        cuts = [0, kernel.extent]
        if seed is not None and kernel.extent > 1:
            dice = random.Random(seed)
            cuts = sorted({0, kernel.extent, *(dice.randrange(kernel.extent) for _ in range(3))})
        spans = list(pairwise(cuts))
        if seed is not None:
            random.Random(seed).shuffle(spans)
        for low, high in spans:
            function(*pointers, low, high)


class Memory:
    """A buffer for each value, with a guard of unused elements on both sides."""

    GUARD = 64

    def __init__(self, placements: Mapping[Value, Placement] | None = None) -> None:
        self.placements = dict(placements or {})
        self.buffers: dict[Any, Array] = {}

    def flat(self, buffer: Value | Temporary | Packed) -> Array:
        if buffer not in self.buffers:
            if isinstance(buffer, Packed) or (isinstance(buffer, Value) and buffer.data is not None):
                whole = np.ascontiguousarray(buffer.data).reshape(-1)
            else:
                dtype = numpy_dtype(buffer.dtype)
                size = int(np.prod(buffer.shape, dtype=np.int64)) + 2 * self.GUARD
                whole = np.zeros(size, dtype)
                whole.view(np.uint8)[:] = 0xA5
                whole = whole[self.GUARD : size - self.GUARD]
            self.buffers[buffer] = whole
        return self.buffers[buffer]

    def pointer(self, buffer: Value | Temporary | Packed, offset: int) -> int:
        if isinstance(buffer, Value) and buffer in self.placements:
            place = self.placements[buffer]
            return self.pointer(place.base, place.offset + offset)
        flat = self.flat(buffer)
        return int(flat.ctypes.data) + offset * flat.itemsize

    def view(self, value: Value) -> Array:
        if value in self.placements:
            place = self.placements[value]
            flat = self.flat(place.base)[place.offset :]
            steps = [s * flat.itemsize for s in place.strides]
            return np.lib.stride_tricks.as_strided(flat, value.shape, steps)
        return self.flat(value).reshape(value.shape)

    def check_guards(self) -> None:
        for buffer, flat in self.buffers.items():
            if isinstance(flat.base, np.ndarray) and flat.base.size == flat.size + 2 * self.GUARD:
                raw_bytes = flat.base.view(np.uint8)
                edge = self.GUARD * flat.itemsize
                ends = np.concatenate([raw_bytes[:edge], raw_bytes[raw_bytes.size - edge :]])
                assert (ends == 0xA5).all(), f"{buffer} was written outside of its bounds"


class Compiled:
    """A graph's groups as kernels, and the memory they work on."""

    def __init__(
        self,
        graph: Graph,
        target: Target | None = None,
        lower: Callable[[Group, Context], list[Kernel]] | None = None,
        placements: Mapping[Value, Placement] | None = None,
        groups: Sequence[Group] | None = None,
    ) -> None:
        self.graph = graph
        self.target = target or host()
        self.memory = Memory(placements)
        self.context = Context(self.target, graph, dict(placements or {}))
        self.groups = list(groups) if groups is not None else fuse.partition(graph, self.target)
        lower = lower or rules.lower
        self.kernels = [kernel for group in self.groups for kernel in lower(group, self.context)]
        self.library = Library(self.kernels, self.target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.library.close()

    def feed(self, feeds: Mapping[str, Array]) -> None:
        for value in self.graph.inputs:
            self.memory.view(value)[...] = feeds[value.name]

    def pointers(self, kernel: Kernel) -> list[int]:
        return [self.memory.pointer(arg.buffer, arg.offset) for arg in kernel.args]

    def run(self, seed: int | None = None) -> dict[str, Array]:
        for kernel in self.kernels:
            self.library.call(kernel, self.pointers(kernel), seed)
        self.memory.check_guards()
        return {v.name: self.memory.view(v).copy() if v.data is None else v.data for v in self.graph.outputs}


def using(*table: Rule) -> Callable[[Group, Context], list[Kernel]]:
    """Lower with these rules alone."""

    def lower(group: Group, context: Context) -> list[Kernel]:
        for rule in table:
            if rule.matches(group, context):
                return rule.lower(group, context)
        raise AssertionError(f"no rule takes {group.anchor.op}")

    return lower


def compare(got: Array, want: Array, tolerance: float | None = None, what: str = "") -> None:
    """Floats within a tolerance relative to the greatest magnitude (and NaN where NaN), everything else exactly."""
    assert got.shape == want.shape, f"{what}: {got.shape} instead of {want.shape}"
    assert got.dtype == want.dtype, f"{what}: {got.dtype} instead of {want.dtype}"
    name = str(want.dtype)
    if name not in TOLERANCE:
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    wide_got, wide_want = got.astype(np.float64), want.astype(np.float64)
    finite = wide_want[np.isfinite(wide_want)]
    scale = float(np.abs(finite).max()) if finite.size else 1.0
    limit = TOLERANCE[name] if tolerance is None else tolerance
    np.testing.assert_allclose(wide_got, wide_want, rtol=limit, atol=limit * max(scale, 1e-30), err_msg=what)


def check(
    graph: Graph,
    feeds: Mapping[str, Array],
    *,
    lower: Callable[[Group, Context], list[Kernel]] | None = None,
    target: Target | None = None,
    placements: Mapping[Value, Placement] | None = None,
    groups: Sequence[Group] | None = None,
    tolerance: float | None = None,
    seed: int = 1,
) -> Compiled:
    """Compile, run, compare. Returns what was compiled (closed), for questions about its kernels."""
    with Compiled(graph, target, lower, placements, groups) as compiled:
        compiled.feed(feeds)
        with np.errstate(all="ignore"):
            want = run(graph, feeds)
        got = compiled.run(seed)
        for name, array in want.items():
            compare(got[name], np.asarray(array), tolerance, name)
    return compiled


def random_feeds(graph: Graph, seed: int = 0, scale: float = 1.0) -> dict[str, Array]:
    """Normal floats, small integers, coin flips."""
    dice = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in graph.inputs:
        dtype = numpy_dtype(value.dtype)
        if value.dtype == "bool":
            feeds[value.name] = dice.integers(0, 2, value.shape).astype(dtype)
        elif "float" in value.dtype:
            feeds[value.name] = np.asarray(dice.standard_normal(value.shape) * scale).astype(dtype)
        else:
            low = 0 if value.dtype.startswith("u") else -20
            feeds[value.name] = dice.integers(low, 21, value.shape).astype(dtype)
    return feeds
