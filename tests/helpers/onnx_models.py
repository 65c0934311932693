"""Small ONNX models for tests, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.frontends.onnx import import_source
from fleetui.workshop.frontends.onnx.peer import session_of
from fleetui.workshop.frontends.onnx.reading import check
from fleetui.workshop.graph.ir import Array, Graph, run
from fleetui.workshop.options import InputSpec

Shape = Sequence[int | str]


def tensor(array: Any, name: str) -> Any:
    import onnx

    return onnx.numpy_helper.from_array(np.asarray(array), name)


def port(name: str, shape: Shape | None, kind: int = 1) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, None if shape is None else list(shape))


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "", domain: str = "", **attrs: Any
) -> Any:
    from onnx import helper

    return helper.make_node(op, list(inputs), list(outputs), name=name or f"the_{op}", domain=domain, **attrs)


def subgraph(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[str], weights: Sequence[Any] = ()
) -> Any:
    from onnx import helper

    return helper.make_graph(
        list(nodes), "inner", list(inputs), [helper.make_empty_tensor_value_info(o) for o in outputs], list(weights)
    )


def model(
    nodes: Sequence[Any],
    inputs: Mapping[str, Shape | Array],
    outputs: Sequence[str],
    weights: Mapping[str, Any] | None = None,
    opset: int = 13,
    functions: Sequence[Any] = (),
    domains: Mapping[str, int] | None = None,
) -> Any:
    """Inputs are shapes of floats, or arrays whose dtype and shape are taken."""
    from onnx import helper

    ports = []
    for name, shape in inputs.items():
        if isinstance(shape, np.ndarray):
            ports.append(port(name, shape.shape, helper.np_dtype_to_tensor_dtype(shape.dtype)))
        else:
            ports.append(port(name, shape))
    graph = helper.make_graph(
        list(nodes),
        "a graph",
        ports,
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [tensor(array, name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))


def saved(made: Any, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


def imported(made: Any, specs: Sequence[InputSpec] = ()) -> Graph:
    graph = import_source(check(type(made).FromString(made.SerializeToString()), None), specs)
    graph.verify()
    return graph


def by_peer(made: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    session = session_of(made.SerializeToString(), 1)
    names = [out.name for out in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def assert_as_peer(made: Any, feeds: Mapping[str, Array], rtol: float = 1e-4, atol: float = 1e-5) -> Graph:
    """What we compute is what ONNX Runtime computes: names, dtypes, shapes, numbers."""
    graph = imported(made)
    got = run(graph, feeds)
    want = by_peer(made, feeds)
    assert set(got) == set(want)
    for name, array in want.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_allclose(got[name].astype(np.float64), array.astype(np.float64), rtol=rtol, atol=atol)
    return graph
