"""What a report says of a graph: parameters, operations and ports, counted once for all frontends."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fleetui.common.domain.errors import FleetError
from fleetui.workshop.errors import LimitError, ModelError, ShapeError, UnsupportedError
from fleetui.workshop.frontends.base import Port, Problem, Report
from fleetui.workshop.graph import ops
from fleetui.workshop.graph.ir import Graph, Shape
from fleetui.workshop.options import InputSpec


def graph_flops(graph: Graph) -> int:
    return sum(
        ops.flops(node.op, node.inputs, [(out.shape, out.dtype) for out in node.outputs], node.attrs)
        for node in graph.nodes
    )


def settle(port: Port, inputs: Sequence[InputSpec], bound: dict[str, int]) -> tuple[Shape, str]:
    """An input's static shape: what was asked for, else its declared sizes, symbols that are not bound being 1."""
    wish = next((spec for spec in inputs if spec.name == port.name), None)
    if wish is None:
        return tuple(bound.get(d, 1) if isinstance(d, str) else d for d in port.shape), port.dtype
    declared = "×".join(map(str, port.shape)) or "scalar"
    if len(wish.shape) != len(port.shape):
        raise ShapeError(
            f"The input {port.name} has {len(port.shape)} dimensions ({declared}), not {len(wish.shape)}",
            "Give its shape as the model has it",
        )
    for want, have in zip(wish.shape, port.shape, strict=True):
        known = bound.setdefault(have, want) if isinstance(have, str) else have
        if known != want:
            raise ShapeError(
                f"The input {port.name} is {declared} in the model: {want} does not fit {have}",
                "Leave the fixed sizes as they are, or export the model with the size wanted",
            )
    if wish.dtype and wish.dtype != port.dtype:
        raise ShapeError(
            f"The input {port.name} is {port.dtype} in the model, not {wish.dtype}", "Leave the type out"
        )
    return wish.shape, port.dtype


def settle_all(ports: Sequence[Port], inputs: Sequence[InputSpec]) -> list[tuple[Shape, str]]:
    names = [port.name for port in ports]
    for spec in inputs:
        if spec.name not in names:
            raise ShapeError(
                f"The model has no input {spec.name!r}", f"Its inputs are: {', '.join(names) or 'none'}"
            )
    bound: dict[str, int] = {}
    asked = {spec.name for spec in inputs}
    first = {port.name: settle(port, inputs, bound) for port in ports if port.name in asked}
    return [first.get(port.name) or settle(port, inputs, bound) for port in ports]


def symbols(ports: Sequence[Port]) -> list[str]:
    return list(dict.fromkeys(d for port in ports for d in port.shape if isinstance(d, str)))


def work_out(report: Report, load: Callable[[], Graph]) -> None:
    """The operations at the shapes given; what only shows itself on the way there is a problem too."""
    if report.problems:
        return
    try:
        report.flops = graph_flops(load())
    except UnsupportedError as error:
        words = error.sentence + (f". {error.fix}" if error.fix else "")
        report.problems.append(Problem(error.operator or "an operator", error.node, words))


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """A parser's stumbling over a damaged file ends in a sentence."""
    try:
        yield
    except FleetError:
        raise
    except MemoryError as error:
        raise LimitError(f"{what} asks for more memory than there is", "It is damaged, or too large") from error
    except RecursionError as error:
        raise ModelError(f"{what} is nested too deeply", "Export the model again") from error
    except (
        ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, TypeError, UnicodeError, ValueError,
        OSError, struct.error, NotImplementedError,
    ) as error:  # fmt: skip
        words = (str(error).splitlines() or [""])[0]
        raise ModelError(
            f"{what} is damaged or of an unusual make ({type(error).__name__}: {words:.160})",
            "Export the model again",
        ) from error
