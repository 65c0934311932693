"""Makes TIR statements by hand, for kernels whose loops are known exactly beforehand.

Writing loops directly instead of transforming a compute definition costs less compile time and gives full control
over borders and tails. Vector loops stay scalar loops marked ``VECTORIZED``, so that any scalar expression (an
epilogue) can stand in them. Nothing here knows what is being computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fleetui.workshop.kernel import PARALLEL

Expr = Any
Stmt = Any
Buffer = Any


def integer(value: int) -> Expr:
    from tvm import tirx

    return tirx.const(value, "int32")


def number(value: float, dtype: str) -> Expr:
    from tvm import tirx

    return tirx.const(value, dtype)


def variable(name: str) -> Expr:
    from tvm import tirx

    return tirx.Var(name, "int32")


def sequence(statements: Iterable[Stmt]) -> Stmt:
    from tvm import tirx

    flat: list[Stmt] = []
    for statement in statements:
        if isinstance(statement, list):
            flat.extend(statement)
        else:
            flat.append(statement)
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def _loop(
    kind: int,
    name: str,
    start: Expr | int,
    extent: Expr | int,
    body: Callable[[Expr], Stmt | Sequence[Stmt]],
    annotations: Mapping[str, Any] | None = None,
) -> Stmt:
    from tvm import tirx

    var = variable(name)
    inner = body(var)
    if isinstance(inner, list | tuple):
        inner = sequence(inner)
    lower = integer(start) if isinstance(start, int) else start
    times = integer(extent) if isinstance(extent, int) else extent
    return tirx.For(var, lower, times, tirx.ForKind(kind), inner, annotations=dict(annotations or {}))


def serial(
    name: str, extent: Expr | int, body: Callable[[Expr], Stmt | Sequence[Stmt]], start: Expr | int = 0
) -> Stmt:
    """``for name in [start, start + extent)``; a loop of one is no loop."""
    if isinstance(extent, int) and extent == 1:
        inner = body(integer(start) if isinstance(start, int) else start)
        return sequence(inner) if isinstance(inner, list | tuple) else inner
    return _loop(0, name, start, extent, body)


def parallel(extent: int, body: Callable[[Expr], Stmt | Sequence[Stmt]]) -> Stmt:
    """The kernel's one parallel loop."""
    if extent == 1:
        return serial("task", 1, body)
    return _loop(0, "task", 0, extent, body, {PARALLEL: 1})


def vector(lanes: int, body: Callable[[Expr], Stmt | Sequence[Stmt]]) -> Stmt:
    """All lanes at once; one lane is a plain statement."""
    if lanes == 1:
        return serial("lane", 1, body)
    return _loop(2, "lane", 0, lanes, body)


def store(buffer: Buffer, indices: Sequence[Expr], value: Expr) -> Stmt:
    from tvm import tirx

    return tirx.BufferStore(buffer, value, list(indices))


def load(buffer: Buffer, *indices: Expr) -> Expr:
    from tvm import tirx

    return tirx.BufferLoad(buffer, list(indices))


def prefetch(buffer: Buffer, index: Expr) -> Stmt:
    """Ask for a line of memory in the second-level cache; harmless beyond the buffer's end."""
    from tvm import tirx

    place = tirx.address_of(load(buffer, index))
    return tirx.Evaluate(
        tirx.call_llvm_intrin("void", "llvm.prefetch.p0", place, integer(0), integer(2), integer(1))
    )


def widen(value: Expr, dtype: str) -> Expr:
    """The value in a dtype, converted only where it has another."""
    from tvm import tirx

    return value if str(value.ty.dtype) == dtype else tirx.Cast(dtype, value)


def across(buffer: Buffer, at: Expr, lanes: int, value: Callable[[Expr], Expr]) -> Stmt:
    """``buffer[at + lane] = value(lane)`` for all lanes of one vector."""
    return vector(lanes, lambda lane: store(buffer, [at + lane], value(lane)))


def unrolled(name: str, start: int, stop: int, body: Callable[[Expr], Stmt | Sequence[Stmt]]) -> Stmt:
    """For every number from ``start`` to ``stop``; written out late, which keeps the earlier passes quick."""
    if stop - start == 1:
        return serial(name, 1, body, start)
    return _loop(3, name, start, stop - start, body)


def bind(name: str, value: Expr) -> tuple[Expr, Stmt]:
    """A variable, and the statement that gives it its value."""
    from tvm import tirx

    var = tirx.Var(name, str(value.ty.dtype) if hasattr(value, "ty") else "int32")
    return var, tirx.Bind(var, value)


def choose(condition: Expr, then: Stmt, otherwise: Stmt | None = None) -> Stmt:
    from tvm import tirx

    return tirx.IfThenElse(condition, then, otherwise)


def quotient(a: Expr, b: int) -> Expr:
    """``a // b`` for an ``a`` that is never negative, which the compiler cannot always know."""
    from tvm import tirx

    return tirx.truncdiv(a, integer(b))


def remainder(a: Expr, b: int) -> Expr:
    """``a % b`` for an ``a`` that is never negative."""
    from tvm import tirx

    return tirx.truncmod(a, integer(b))


def split(number: Expr, size: int) -> tuple[Expr, Expr]:
    """A number that is never negative as quotient and remainder."""
    if size == 1:
        return number, integer(0)
    return quotient(number, size), remainder(number, size)


def least(a: Expr, b: Expr) -> Expr:
    from tvm import tirx

    return tirx.min(a, b)


def most(a: Expr, b: Expr) -> Expr:
    from tvm import tirx

    return tirx.max(a, b)


def buffer(name: str, shape: Sequence[int], dtype: str) -> Buffer:
    from tvm import tirx

    return tirx.decl_buffer(tuple(shape), dtype, name=name)


def local(name: str, size: int, dtype: str) -> tuple[Buffer, Stmt]:
    """A small array on the stack or, after unrolling, in registers."""
    from tvm import tirx

    made = tirx.decl_buffer((size,), dtype, name=name, scope="local")
    return made, tirx.AllocBuffer(made)


def function(parameters: Sequence[Buffer], body: Stmt) -> Any:
    from tvm import tirx

    return tirx.PrimFunc(list(parameters), body).with_attr("tirx.noalias", True)


def pieces(size: int, lanes: int) -> list[tuple[int, int]]:
    """Cut ``size`` into (start, width) with power-of-two widths of at most ``lanes``."""
    cut: list[tuple[int, int]] = []
    at, width = 0, lanes
    while at < size:
        while width > size - at:
            width //= 2
        cut.append((at, width))
        at += width
    return cut
