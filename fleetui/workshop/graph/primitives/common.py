"""What the families share: attributes that are checked, dtypes in classes, the detour through float32.

Messages are sentences a person can act on: they reach the operator through ``ShapeError``. A missing attribute is
a mistake of ours or of a plug-in and is a ``BugError``.
"""

# ruff: noqa: ARG001 - a rule is called with all that any rule may need

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from fleetui.common.domain.errors import BugError
from fleetui.workshop.errors import ShapeError
from fleetui.workshop.graph.ir import Array, Shape, Value, numpy_dtype
from fleetui.workshop.graph.ops import Kind, OpSpec, Types

Attrs = dict[str, Any]
Inputs = Sequence[Value | None]
Arrays = Sequence[Array | None]

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
INTS = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})
BYTES = frozenset({"int8", "uint8"})
NUMBERS = FLOATS | INTS


def spec(
    name: str,
    kind: Kind,
    infer: Callable[[Inputs, Attrs], Types],
    evaluate: Callable[[Arrays, Attrs], Sequence[Array]],
    flops: Callable[[Inputs, Types, Attrs], int],
    required: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> OpSpec:
    """A spec whose rule also checks that the attributes are the operator's own. Names with ``_`` pass as notes."""
    needed, known = tuple(required), {*required, *optional}

    def checked(inputs: Inputs, attrs: Attrs) -> Types:
        for key in needed:
            if key not in attrs:
                raise BugError(f"{name} lacks the attribute {key}")
        for key in attrs:
            if key not in known and not key.startswith("_"):
                raise BugError(f"{name} has no attribute {key}")
        return infer(inputs, attrs)

    def computed(arrays: Arrays, attrs: Attrs) -> list[Array]:
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in evaluate(arrays, attrs)]

    return OpSpec(name, kind, checked, computed, flops)


# ---------------------------------------------------------------- inputs


def given(inputs: Inputs, count: int, op: str) -> list[Value]:
    """The first ``count`` inputs, which must be there."""
    found = [value for value in inputs[:count] if value is not None]
    if len(found) < count:
        raise BugError(f"{op} needs {count} inputs")
    return found


def maybe(inputs: Inputs, index: int) -> Value | None:
    return inputs[index] if index < len(inputs) else None


def array(arrays: Arrays, index: int) -> Array:
    found = arrays[index] if index < len(arrays) else None
    if found is None:
        raise BugError(f"input {index} has no data")
    return found


def array_or_none(arrays: Arrays, index: int) -> Array | None:
    return arrays[index] if index < len(arrays) else None


def say(shape: Shape) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def must(holds: bool, sentence: str) -> None:
    if not holds:
        raise ShapeError(sentence, "Check the model, or the input shapes that were given")


def dtype_in(op: str, value: Value, allowed: frozenset[str]) -> None:
    must(value.dtype in allowed, f"{op} does not work on {value.dtype}")


def same_dtype(op: str, *values: Value) -> None:
    kinds = {value.dtype for value in values}
    must(len(kinds) == 1, f"{op} got different types: {', '.join(sorted(kinds))}")


def axis_in(op: str, axis: int, rank: int) -> None:
    must(0 <= axis < rank, f"{op} along dimension {axis} of a tensor of rank {rank}")


def broadcast(op: str, *shapes: Shape) -> Shape:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        must(False, f"{op}: shapes {' and '.join(map(say, shapes))} do not fit together")
        raise  # unreachable: must raised


def dtype_name(of: Array) -> str:
    return str(of.dtype)


# ---------------------------------------------------------------- numbers


def is_narrow(of: Array) -> bool:
    return dtype_name(of) in {"float16", "bfloat16"}


def is_float(of: Array) -> bool:
    return dtype_name(of) in FLOATS


def wide(of: Array) -> Array:
    """float16 and bfloat16 as float32, everything else as it is."""
    return of.astype(np.float32) if is_narrow(of) else of


def like(result: Array, of: Array) -> Array:
    """Round a result once to the dtype it is due in."""
    result = np.asarray(result)
    return result if result.dtype == of.dtype else result.astype(of.dtype)


def limits(dtype: str) -> tuple[int, int]:
    """The least and greatest number of an integer dtype."""
    bits = {"int4": 4, "uint4": 4}.get(dtype) or np.dtype(dtype).itemsize * 8
    return (0, (1 << bits) - 1) if dtype.startswith("uint") else (-(1 << bits - 1), (1 << bits - 1) - 1)


def lowest(dtype: str) -> float | int:
    if dtype in FLOATS:
        return -np.inf
    return 0 if dtype == "bool" else limits(dtype)[0]


def highest(dtype: str) -> float | int:
    if dtype in FLOATS:
        return np.inf
    return 1 if dtype == "bool" else limits(dtype)[1]


def to_ints(numbers: Array, dtype: str) -> Array:
    """Clamp to the range of ``dtype`` (what is not a number becomes 0) and truncate toward zero."""
    low, high = limits(dtype)
    if numbers.dtype.kind == "f":
        fits = numpy_dtype(dtype)
        inside = np.trunc(np.nan_to_num(numbers.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
        over, under = inside >= float(high), inside <= float(low)
        exact = np.where(over | under, 0.0, inside)
        whole = exact.astype(np.uint64 if dtype == "uint64" else np.int64).astype(fits)
        return np.where(over, np.array(high).astype(fits), np.where(under, np.array(low).astype(fits), whole))
    have = limits(dtype_name(numbers)) if numbers.dtype.kind in "iu" else (0, 1)
    return np.clip(numbers, max(low, have[0]), min(high, have[1])).astype(numpy_dtype(dtype))


def size(shape: Shape) -> int:
    return prod(shape)


def no_flops(inputs: Inputs, types: Types, attrs: Attrs) -> int:
    return 0


def per_output(cost: int) -> Callable[[Inputs, Types, Attrs], int]:
    def count(inputs: Inputs, types: Types, attrs: Attrs) -> int:
        return cost * prod(types[0][0])

    return count


def per_input(cost: int) -> Callable[[Inputs, Types, Attrs], int]:
    def count(inputs: Inputs, types: Types, attrs: Attrs) -> int:
        first = inputs[0]
        return cost * (first.size if first is not None else 0)

    return count
