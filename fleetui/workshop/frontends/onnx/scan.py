"""What a model is and what stands in the way of compiling it, as a ``Report``: all problems, not just the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import ShapeError, UnsupportedError, WorkshopError
from fleetui.workshop.frontends.base import Port, Problem, Report
from fleetui.workshop.frontends.onnx import operators
from fleetui.workshop.frontends.onnx.call import CONTRIB, OPERATORS
from fleetui.workshop.frontends.onnx.importer import Importer, trees, unknown
from fleetui.workshop.frontends.onnx.reading import OPSET_NEWEST, Source, nodes_of, title_of
from fleetui.workshop.frontends.onnx.tensors import dtype_title, to_array
from fleetui.workshop.frontends.summary import graph_flops
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.options import InputSpec

LARGEST = 1 << 30
"""Weights above this many bytes are not searched for numbers that are none."""


def report(source: Source, specs: Sequence[InputSpec], title: str) -> Report:
    graph = source.model.graph
    weights = {tensor.name for tensor in graph.initializer}
    found = Report("onnx", title, bytes=source.bytes)
    found.inputs = [_port(value) for value in graph.input if value.name not in weights]
    found.outputs = [_port(value) for value in graph.output]
    found.parameters = sum(prod(tensor.dims) for tensor in graph.initializer)
    found.operators = dict(Counter(node.op_type for node, _, _ in nodes_of(source)).most_common())
    found.details = {
        "format": int(source.model.ir_version),
        "opsets": {domain or "ai.onnx": version for domain, version in source.opsets.items()},
        "producer": f"{source.model.producer_name} {source.model.producer_version}".strip(),
        "graph": graph.name,
        "functions": len(source.functions),
    }
    version = source.opsets.get("", 0)
    if version > OPSET_NEWEST:
        found.warnings.append(
            f"The model uses operator set {version}; the newest known here is {OPSET_NEWEST}, "
            "and operators that changed since are read by the older rule"
        )
    found.symbolic = list(
        dict.fromkeys(size for port in found.inputs for size in port.shape if isinstance(size, str))
    )
    found.warnings += _strange_numbers(source)
    problems, built, defaulted = problems_of(source, specs)
    found.problems = problems
    if defaulted:
        found.warnings.append(f"Sizes not given are taken as 1: {', '.join(defaulted)}")
    if built is not None and not problems:
        found.flops = graph_flops(built)
        if "ConstantOfShape" in found.operators:
            found.parameters = max(found.parameters, _made_up(built))
    return found


def problems_of(source: Source, specs: Sequence[InputSpec]) -> tuple[list[Problem], Graph | None, list[str]]:
    """Everything that is refused: unknown operators first, then what an import that goes on regardless meets."""
    importer = Importer(source, specs, collect=True)
    problems = [Problem(refusal.operator, refusal.node, str(refusal)) for refusal in unknown_operators(source)]
    named = {problem.node for problem in problems}
    built: Graph | None = None
    try:
        built = importer.run()
    except UnsupportedError as error:
        importer.problems.append(Problem(error.operator or "input", error.node, str(error)))
    except ShapeError as error:
        importer.problems.append(Problem("shape", "", str(error)))
    problems += [p for p in importer.problems if p.node not in named]
    return problems, built, importer.defaulted


def unknown_operators(source: Source) -> list[UnsupportedError]:
    """Found without importing anything."""
    operators.load()
    refusals: list[UnsupportedError] = []
    for node, _, where in nodes_of(source):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (node.domain, node.op_type, getattr(node, "overload", "")) in source.functions:
            continue
        table: Any = {"": OPERATORS, "com.microsoft": CONTRIB}.get(domain, {})
        if node.op_type in table or (domain == "ai.onnx.ml" and node.op_type in trees()):
            continue
        label = f"{where} {title_of(node)}".strip()
        refusals.append(unknown(domain, node.op_type, label))
    return refusals


def _made_up(graph: Graph) -> int:
    """Weights that the file spells out as a shape and a number (the exporters of old did)."""
    return sum(
        value.size for value in graph.constants() if value.rank and value.dtype.startswith(("float", "bfloat"))
    )


def _port(value: Any) -> Port:
    if not value.type.HasField("tensor_type"):
        return Port(value.name, (), (value.type.WhichOneof("value") or "unknown").replace("_type", ""))
    kind = value.type.tensor_type
    shape = tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or f"{value.name}[{index}]"
        for index, dim in enumerate(kind.shape.dim)
    )
    return Port(value.name, shape, dtype_title(kind.elem_type))


def _strange_numbers(source: Source) -> list[str]:
    """Weights that are not numbers: allowed, but somebody should know."""
    named: list[str] = []
    for tensor in source.model.graph.initializer:
        if tensor.data_type not in {1, 10, 11, 16} or prod(tensor.dims) > LARGEST:
            continue
        try:
            array = to_array(tensor, source.folder)
        except WorkshopError:
            continue  # the import names what is wrong with it
        if np.isnan(np.asarray(array, np.float32) if array.dtype.kind == "V" else array).any():
            named.append(tensor.name)
    if not named:
        return []
    shown = ", ".join(f"'{name}'" for name in named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
    return [f"{len(named)} weight tensors hold values that are not numbers: {shown}"]


def title(source: Source, path: Path) -> str:
    return source.model.graph.name or path.stem
