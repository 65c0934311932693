"""``--input NAME=SHAPE[:DTYPE]``, as ``inspect`` and ``compile`` take it: ``data=1x3x224x224:float32``.

A scalar has the shape ``scalar``. Whether the model has such an input is the frontend's question, not ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from fleetui.common.domain.errors import ConfigError
from fleetui.workshop.graph.ir import BITS
from fleetui.workshop.options import InputSpec

EXAMPLE = "Write NAME=SHAPE or NAME=SHAPE:DTYPE, e.g. data=1x3x224x224:float32"
LARGEST = 1 << 31
RANK = 8
SHORT = {
    "f16": "float16", "half": "float16", "bf16": "bfloat16", "f32": "float32", "float": "float32",
    "fp32": "float32",
    "f64": "float64", "double": "float64", "i8": "int8", "i16": "int16", "i32": "int32", "int": "int32",
    "i64": "int64", "long": "int64", "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
    "fp16": "float16",
}  # fmt: skip
TAKEN = sorted(set(BITS) - {"int4", "uint4"})


def parse_input(text: str) -> InputSpec:
    """One argument. Names may hold ``:`` and ``/`` (TensorFlow's do), since the last ``=`` parts name and shape."""
    name, equals, rest = text.rpartition("=")
    name = name.strip()
    if not equals or not name:
        raise ConfigError(f"--input {text!r} names no input", EXAMPLE)
    shape_text, _, dtype = rest.partition(":")
    shape = _shape(shape_text.strip().lower(), text)
    return InputSpec(name, shape, _dtype(dtype.strip().lower(), text) if dtype else "")


def parse_inputs(texts: Sequence[str]) -> tuple[InputSpec, ...]:
    specs = tuple(parse_input(text) for text in texts)
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--input says {name!r} more than once", "Say it once")
    return specs


def _shape(text: str, whole: str) -> tuple[int, ...]:
    if text in {"scalar", "()", "[]"}:
        return ()
    parts = text.strip("()[]").replace(",", "x").replace("×", "x").replace("*", "x").rstrip("x").split("x")
    sizes: list[int] = []
    for part in parts:
        part = part.strip()  # noqa: PLW2901 - the same part, tidied
        if not (part.isascii() and part.isdigit()):
            what = "is left open" if part in {"?", "-1", "none"} else "is not a whole number"
            raise ConfigError(f"--input {whole!r}: the size {part!r} {what}", EXAMPLE)
        if len(part) > 10 or not 0 < int(part) < LARGEST:
            raise ConfigError(f"--input {whole!r}: the size {part} is out of range", "Sizes are 1 to 2147483647")
        sizes.append(int(part))
    if len(sizes) > RANK:
        raise ConfigError(f"--input {whole!r} has {len(sizes)} dimensions", f"At most {RANK} are taken")
    return tuple(sizes)


def _dtype(text: str, whole: str) -> str:
    dtype = SHORT.get(text, text)
    if dtype in TAKEN:
        return dtype
    near = difflib.get_close_matches(dtype, TAKEN, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(TAKEN)}"
    raise ConfigError(f"--input {whole!r}: there is no type {text!r}", hint)
