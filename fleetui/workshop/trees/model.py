"""What the frontends of tree models share: a table of rows in, a graph of one node, a report, files with a ceiling.

The batch is symbolic (``rows``): the kernel takes any number of rows, so ``--input`` is needed for nothing but the
dtype, or to fix a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import LimitError, ModelError, ShapeError
from fleetui.workshop.frontends.base import Port, Report
from fleetui.workshop.frontends.summary import graph_flops
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Graph, Value
from fleetui.workshop.options import InputSpec
from fleetui.workshop.trees.ensemble import Ensemble

ROWS = "rows"
FILE_BYTES = 1 << 30
FLOATS = ("float32", "float64")


def read_bytes(path: Path, most: int = FILE_BYTES) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}", "Check the path") from None
    if len(data) > most:
        raise LimitError(f"{path.name} is larger than {most >> 20} MiB", "Use a smaller model")
    return data


def settle(port: Port, inputs: Sequence[InputSpec]) -> tuple[int, str]:
    """Rows and dtype, as asked for."""
    features = port.shape[1]
    rows, dtype = 1, port.dtype
    for spec in inputs:
        if spec.name != port.name:
            raise ShapeError(f"The model has no input {spec.name!r}", f"Its only input is {port.name}")
        if len(spec.shape) != 2 or spec.shape[1] != features or spec.shape[0] < 1:
            raise ShapeError(
                f"The input {port.name} is a table of {features} columns, not {list(spec.shape)}",
                f"Give --input {port.name}=ROWSx{features}",
            )
        rows, dtype = spec.shape[0], spec.dtype or dtype
        if dtype not in FLOATS:
            raise ShapeError(f"The input {port.name} cannot be {dtype}", "Use float32 or float64")
    return rows, dtype


def graph_of(
    name: str, ensemble: Ensemble, port: Port, inputs: Sequence[InputSpec], outputs: Sequence[str]
) -> Graph:
    """One node, whose outputs are the graph's under the names given: the scores first, then the posts."""
    rows, dtype = settle(port, inputs)
    b = Builder(name)
    x = b.input(port.name, (rows, ensemble.features), dtype)
    b.source = f"{ensemble.trees} trees"
    return finish(b, b.ops("trees", x, ensemble=ensemble), outputs)


def finish(b: Builder, values: Sequence[Value], names: Sequence[str]) -> Graph:
    for value, name in zip(values, names, strict=True):
        value.name = name
        b.output(value, name)
    return b.finish()


def report_of(
    kind: str, title: str, path: Path, port: Port, graph: Graph, details: Mapping[str, Any], warnings: Sequence[str]
) -> Report:
    found = [node.attrs["ensemble"] for node in graph.nodes if node.op == "trees"]
    operators: dict[str, int] = {}
    for node in graph.nodes:
        operators[node.op] = operators.get(node.op, 0) + 1
    rest = sum(value.size for value in graph.constants())
    return Report(
        kind=kind,
        title=title,
        inputs=[port],
        outputs=[Port(v.name, (ROWS, *v.shape[1:]), v.dtype) for v in graph.outputs],
        parameters=sum(e.parameters for e in found) + rest,
        operators=operators,
        flops=graph_flops(graph),
        bytes=path.stat().st_size,
        symbolic=[ROWS],
        warnings=list(warnings),
        details={
            "trees": sum(e.trees for e in found),
            "nodes": sum(len(e.feature) for e in found),
            "depth": max((int(e.depths.max(initial=0)) for e in found), default=0),
            **details,
        },
    )


class Answers(dict[str, Array]):
    """A peer's outputs: what it gives at once, and what it is asked for only when somebody looks."""

    def __init__(self, given: Mapping[str, Array], later: Mapping[str, Callable[[], Array]]) -> None:
        super().__init__(given)
        self._later = later

    def __missing__(self, name: str) -> Array:
        self[name] = found = np.asarray(self._later[name]())
        return found
