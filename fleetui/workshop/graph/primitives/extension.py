"""``extern``: an operator that a plug-in brings, code and all. Nothing is known here about what it computes."""

# ruff: noqa: ARG001 - a rule is called with all that any rule may need

from __future__ import annotations

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.graph.ops import Kind, OpSpec, Types
from fleetui.workshop.graph.primitives.common import Arrays, Attrs, Inputs, must, spec


def _infer(inputs: Inputs, attrs: Attrs) -> Types:
    must(
        len(attrs["shapes"]) == len(attrs["dtypes"]), "an extern operator states a shape and a type for each output"
    )
    return [(tuple(shape), dtype) for shape, dtype in zip(attrs["shapes"], attrs["dtypes"], strict=True)]


def _evaluate(arrays: Arrays, attrs: Attrs) -> list[Array]:
    function = attrs["evaluate"]
    if function is None:
        raise UnsupportedError(
            "a plug-in's operator cannot be computed without its device",
            "Compile for a target that has it, or ask the plug-in's author for a reference",
            operator="extern",
        )
    return list(function(*arrays))


def _flops(inputs: Inputs, types: Types, attrs: Attrs) -> int:
    return int(attrs["flops"])


SPECS: list[OpSpec] = [
    spec("extern", Kind.OPAQUE, _infer, _evaluate, _flops, ("build", "shapes", "dtypes", "evaluate", "flops"))
]
