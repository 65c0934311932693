"""Small models that are compiled for real, and readers of what a compiled file exports and needs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from fleetui.workshop import pipeline, targets
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, run
from fleetui.workshop.options import Options
from fleetui.workshop.pipeline import Variant
from fleetui.workshop.target import Target


def mlp(sizes: Sequence[int] = (20, 64, 32, 4), rows: int = 1, name: str = "mlp") -> Graph:
    rng = np.random.default_rng(5)
    b = Builder(name)
    x = b.input("x", (rows, sizes[0]), "float32")
    for layer, (i, o) in enumerate(pairwise(sizes)):
        if layer:
            x = b.op("relu", x)
        weight = (rng.standard_normal((i, o)) / np.sqrt(i)).astype(np.float32)
        x = b.op("dense", x, b.constant(weight), b.constant(rng.standard_normal(o).astype(np.float32)))
    b.output(x, "y")
    return b.finish()


def joined(name: str = "joined") -> Graph:
    """Two inputs, two outputs, a concatenation written in place, transcendental functions."""
    b = Builder(name)
    x, z = b.input("x", (1, 6, 6, 8), "float32"), b.input("z", (1, 6, 6, 4), "float32")
    both = b.op("concat", b.op("tanh", x), b.op("exp", z), axis=3)
    b.output(b.op("sigmoid", both), "wide")
    b.output(b.op("reduce", both, kind="mean", axes=(1, 2), keepdims=False), "mean")
    return b.finish()


def feeds_of(graph: Graph, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {v.name: rng.standard_normal(v.shape).astype(v.dtype) for v in graph.inputs}


def wanted(graph: Graph, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run(graph, feeds)


def build(graph: Graph, folder: Path, target: Target | None = None, **options: object) -> Variant:
    return pipeline.build_variant(graph, target or targets.find("host"), folder, Options(**options))  # type: ignore[arg-type]


# ------------------------------------------------------------ what a compiled file says of itself


@dataclass(frozen=True)
class Symbols:
    exported: frozenset[str]
    undefined: frozenset[str]
    needed: frozenset[str]


def symbols(path: Path) -> Symbols:
    data = path.read_bytes()
    if data.startswith(b"\x7fELF"):
        return _elf(data)
    if data.startswith(b"MZ"):
        return _pe(data)
    if data.startswith(struct.pack("<I", 0xFEEDFACF)):
        return _mach(data)
    raise AssertionError(f"{path}: unknown kind of file {data[:4]!r}")


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _elf(data: bytes) -> Symbols:
    wide = data[4] == 2
    at, entry, count = (
        (struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 58))
        if wide
        else (struct.unpack_from("<I", data, 32)[0], *struct.unpack_from("<HH", data, 46))
    )
    form, symbol = ("<IIQQQQII", "<IBBHQQ") if wide else ("<IIIIIIII", "<IIIBBH")
    exported, undefined, needed = set(), set(), set()
    sections = [struct.unpack_from(form, data, at + k * entry) for k in range(count)]
    for _, kind, _, _, start, size, link, _ in sections:
        strings = sections[link][4] if link < len(sections) else 0
        if kind == 11:  # dynamic symbols
            for spot in range(start, start + size, struct.calcsize(symbol)):
                fields = struct.unpack_from(symbol, data, spot)
                name, info, place = (fields[0], fields[1], fields[3]) if wide else (fields[0], fields[3], fields[5])
                if name and info >> 4 in {1, 2}:  # global, weak
                    (undefined if place == 0 else exported).add(_text(data, strings + name))
        if kind == 6:  # dynamic section
            form2 = "<qQ" if wide else "<iI"
            for spot in range(start, start + size, struct.calcsize(form2)):
                tag, value = struct.unpack_from(form2, data, spot)
                if tag == 1:
                    needed.add(_text(data, strings + value))
    return Symbols(frozenset(exported), frozenset(undefined), frozenset(needed))


def _pe(data: bytes) -> Symbols:
    head = struct.unpack_from("<I", data, 60)[0]
    count, optional = struct.unpack_from("<H", data, head + 6)[0], struct.unpack_from("<H", data, head + 20)[0]
    start = head + 24
    sections = [
        struct.unpack_from("<IIII", data, start + optional + k * 40 + 8) for k in range(count)
    ]  # size, address, raw size, raw place

    def at(address: int) -> int:
        for size, base, raw_size, raw in sections:
            if base <= address < base + max(size, raw_size):
                return address - base + raw
        raise AssertionError(f"address {address:#x} is in no section")

    exports, imports = (struct.unpack_from("<I", data, start + 112 + 8 * k)[0] for k in range(2))
    exported, undefined, needed = set(), set(), set()
    table = at(exports)
    names, where = struct.unpack_from("<I", data, table + 24)[0], struct.unpack_from("<I", data, table + 32)[0]
    for k in range(names):
        exported.add(_text(data, at(struct.unpack_from("<I", data, at(where) + 4 * k)[0])))
    spot = at(imports) if imports else 0
    while spot:
        lookup, _, _, name, _ = struct.unpack_from("<IIIII", data, spot)
        if not name:
            break
        needed.add(_text(data, at(name)))
        entry = at(lookup)
        while hint := struct.unpack_from("<Q", data, entry)[0]:
            undefined.add(_text(data, at(hint) + 2))
            entry += 8
        spot += 20
    return Symbols(frozenset(exported), frozenset(undefined), frozenset(needed))


def _mach(data: bytes) -> Symbols:
    exported, undefined, needed = set(), set(), set()
    at = 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size, first, count, strings = struct.unpack_from("<IIIII", data, at)
        if command == 2:
            for spot in range(first, first + count * 16, 16):
                name, kind = struct.unpack_from("<IB", data, spot)
                if kind & 0xE0 or not kind & 1 or kind & 0x10:  # debug, local, private
                    continue
                words = _text(data, strings + name).removeprefix("_")
                (exported if kind & 0x0E else undefined).add(words)
        if command == 0xC:
            needed.add(_text(data, at + first))
        at += size
    return Symbols(frozenset(exported), frozenset(undefined), frozenset(needed))


LIBM = frozenset({
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh",
    "erf", "erfc", "exp", "exp2", "expm1", "fabs", "floor", "fma", "fmax", "fmin", "fmod", "ldexp", "log",
    "log10", "log1p", "log2", "lrint", "nearbyint", "pow", "remainder", "rint", "round", "roundeven", "sin",
    "sincos", "sinh", "sqrt", "tan", "tanh", "trunc",
})  # fmt: skip
LIBC = frozenset({"memcpy", "memmove", "memset", "memcmp", "syscall", "clock_gettime", "nanosleep", "Sleep"})
LOADER = frozenset(
    {"dyld_stub_binder", "__cxa_finalize", "_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable"}
) | {"__gmon_start__"}


def freestanding(names: frozenset[str]) -> bool:
    """Whether all of these functions are libc's or libm's."""
    return all(n in LIBC | LIBM | LOADER or n.removesuffix("f") in LIBM for n in names)
