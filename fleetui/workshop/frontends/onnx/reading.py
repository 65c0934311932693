"""A model file read with care: size ceilings first, then protobuf, then whether the graph holds together.

Does not look at what operators mean. ``read`` gives a ``Source`` whose graphs are in a valid order, whose names are
unique and whose tensors have the sizes they claim; everything else about the file may still be nonsense.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetui.workshop.errors import LimitError, MissingExtra, ModelError
from fleetui.workshop.frontends.onnx.tensors import (
    EXPORT,
    MODEL_BYTES,
    external_total,
    tensor_bytes,
)

IR_NEWEST = 14
"""The newest file format understood; later ones may mean other things by the same fields."""
OPSET_NEWEST = 28
DEPTH = 32
"""Graphs inside graphs."""
GRAPH = 5
GRAPHS = 10
"""``AttributeProto.AttributeType``."""


@dataclass(slots=True)
class Source:
    """A model as read: ``folder`` is where its external data may lie."""

    model: Any
    folder: Path | None
    bytes: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    functions: dict[tuple[str, str, str], Any] = field(default_factory=dict)


def library() -> Any:
    try:
        import onnx
    except ImportError:
        raise MissingExtra("Reading ONNX models", "compile") from None
    return onnx


def read(path: Path) -> Source:
    onnx = library()
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

    try:
        size = path.stat().st_size
        if size > MODEL_BYTES:
            raise LimitError(
                f"'{path.name}' has {size / 2**30:.1f} GiB; an ONNX file holds at most 2",
                "Save the model with external data: onnx.save(model, path, save_as_external_data=True)",
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"'{path.name}' cannot be read: {error.strerror or error}", "Check the file") from None
    if not data:
        raise ModelError(f"'{path.name}' is empty", "Copy the file again")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError) as error:
        raise ModelError(
            f"'{path.name}' is not a whole ONNX file: it is damaged or cut off", "Copy or export it again"
        ) from error
    return check(model, path.resolve().parent, size, path.name)


def check(model: Any, folder: Path | None, size: int = 0, title: str = "The model") -> Source:
    """Does it hold together? ``folder`` ``None``: a model in memory, which may not point at files."""
    if not model.HasField("graph"):
        raise ModelError(f"'{title}' holds no graph: it is not an ONNX model, or it is cut off", "Export it again")
    if model.ir_version > IR_NEWEST:
        raise ModelError(
            f"'{title}' is written in ONNX format {model.ir_version}; the newest known here is {IR_NEWEST}",
            "Export it with an older version of onnx",
        )
    _texts(model, title)
    source = Source(model, folder, size)
    source.opsets = _opsets(model.opset_import, title)
    if not source.opsets:
        if model.ir_version >= 3:
            raise ModelError(f"'{title}' does not say which operator set it uses", EXPORT)
        source.opsets = {"": 1}
    for function in model.functions:
        source.functions[function.domain, function.name, getattr(function, "overload", "")] = function
    stored = list(_tensors(model.graph, DEPTH))
    for function in model.functions:
        _order(function, set(function.input), f"function '{function.name}'", DEPTH)
        for node in function.node:
            stored.extend(_node_tensors(node, DEPTH))
    for tensor in stored:
        _sizes(tensor)
    if folder is not None:
        source.bytes += external_total(stored, folder)
    _order(model.graph, set(), "graph", DEPTH)
    return source


def _texts(message: Any, title: str) -> None:
    """Protobuf hands out a string that is not UTF-8 as bytes: no name in a model may be one."""
    for kind, value in message.ListFields():
        several = (value,) if isinstance(value, (str, bytes)) or hasattr(value, "ListFields") else value
        if kind.type == kind.TYPE_STRING:
            if any(isinstance(text, bytes) for text in several):
                raise ModelError(f"'{title}' is damaged: its {kind.name} is not text", EXPORT)
        elif kind.type == kind.TYPE_MESSAGE:
            for inner in several:
                if inner.DESCRIPTOR.name != "TensorProto":
                    _texts(inner, title)
                elif isinstance(inner.name, bytes) or any(
                    isinstance(text, bytes) for entry in inner.external_data for text in (entry.key, entry.value)
                ):
                    raise ModelError(f"'{title}' is damaged: a weight's name is not text", EXPORT)


def _opsets(imports: Iterable[Any], title: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in imports:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if entry.version < 1:
            raise ModelError(
                f"'{title}' names version {entry.version} of the operators '{domain or 'ai.onnx'}'", EXPORT
            )
        found[domain] = max(int(entry.version), found.get(domain, 0))
    return found


def subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.type == GRAPH or (attribute.type == 0 and attribute.HasField("g")):
            yield attribute.g
        elif attribute.type == GRAPHS:
            yield from attribute.graphs


def nodes_of(source: Source) -> Iterator[tuple[Any, dict[str, int], str]]:
    """Every node with the operator sets that hold for it and where it stands; functions only if they are used."""

    def walk(nodes: Iterable[Any], opsets: dict[str, int], where: str) -> Iterator[tuple[Any, dict[str, int], str]]:
        for node in nodes:
            yield node, opsets, where
            for graph in subgraphs(node):
                yield from walk(graph.node, opsets, where)

    yield from walk(source.model.graph.node, source.opsets, "")
    for function in source.model.functions:
        opsets = _opsets(function.opset_import, function.name) or source.opsets
        yield from walk(function.node, opsets, f"function '{function.name}'")


def _tensors(graph: Any, depth: int) -> Iterator[Any]:
    if depth == 0:
        raise ModelError("The model nests graphs too deeply", EXPORT)
    yield from graph.initializer
    if len(graph.sparse_initializer):
        raise ModelError("The model keeps weights as sparse tensors, which we do not read", "Export them dense")
    for node in graph.node:
        yield from _node_tensors(node, depth)


def _node_tensors(node: Any, depth: int) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for graph in subgraphs(node):
        yield from _tensors(graph, depth - 1)


def _sizes(tensor: Any) -> None:
    """Claimed against held, without making arrays."""
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"'{tensor.name}' says it has the shape {list(tensor.dims)}", EXPORT)
    need = tensor_bytes(tensor)
    if need >= 0 and tensor.data_location != 1 and tensor.HasField("raw_data") and len(tensor.raw_data) != need:
        raise ModelError(
            f"'{tensor.name or 'a constant'}' has the shape {list(tensor.dims)} and needs {need:,} bytes, "
            f"but holds {len(tensor.raw_data):,}",
            EXPORT,
        )


# ---------------------------------------------------------------- order


def title_of(node: Any) -> str:
    """What messages call a node."""
    return node.name or next((name for name in node.output if name), "") or node.op_type


def _order(graph: Any, outer: set[str], where: str, depth: int) -> None:
    """Bring ``graph.node`` into an order in which all is made before it is used, or say why there is none."""
    if depth == 0:
        raise ModelError("The model nests graphs too deeply", EXPORT)
    given = {value if isinstance(value, str) else value.name for value in graph.input}
    weights = [tensor.name for tensor in getattr(graph, "initializer", ())]
    inputs = list(graph.input)
    if len(given) != len(inputs):
        raise ModelError(f"Two inputs of the {where} have the same name", EXPORT)
    if len(set(weights)) != len(weights):
        twice = next(name for name in weights if weights.count(name) > 1)
        raise ModelError(f"Two weights of the {where} are called '{twice}'", EXPORT)
    known = outer | given | set(weights)
    made: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in made:
                other = title_of(graph.node[made[name]])
                raise ModelError(f"'{name}' is made twice, by '{other}' and by '{title_of(node)}'", EXPORT)
            if name in given or name in weights:
                raise ModelError(
                    f"'{name}' is made by '{title_of(node)}', but is an input or weight already", EXPORT
                )
            made[name] = index
    needs = [_needed(node, depth) for node in graph.node]
    before: list[set[int]] = []
    for node, names in zip(graph.node, needs, strict=True):
        for name in names:
            if name not in made and name not in known:
                raise ModelError(
                    f"'{title_of(node)}' ({node.op_type}) uses '{name}', which nothing in the {where} makes", EXPORT
                )
        before.append({made[name] for name in names if name in made})
    order = _sorted(before)
    if len(order) != len(graph.node):
        stuck = next(i for i in range(len(graph.node)) if i not in set(order))
        raise ModelError(f"The {where} runs in a circle through '{title_of(graph.node[stuck])}'", EXPORT)
    if order != list(range(len(order))):
        nodes = [type(node).FromString(node.SerializeToString()) for node in (graph.node[i] for i in order)]
        del graph.node[:]
        graph.node.extend(nodes)
    for value in graph.output:
        name = value if isinstance(value, str) else value.name
        if name not in made and name not in known:
            raise ModelError(f"The output '{name}' of the {where} is made by nothing", EXPORT)
    everything = known | set(made)
    for node in graph.node:
        for inner in subgraphs(node):
            _order(inner, everything, f"graph inside '{title_of(node)}'", depth - 1)


def _sorted(before: list[set[int]]) -> list[int]:
    """Stable topological order; shorter than the input where there is a circle."""
    import heapq

    left = [len(b) for b in before]
    after: list[list[int]] = [[] for _ in before]
    for index, names in enumerate(before):
        for other in names:
            after[other].append(index)
    ready = [i for i, n in enumerate(left) if n == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        at = heapq.heappop(ready)
        order.append(at)
        for index in after[at]:
            left[index] -= 1
            if left[index] == 0:
                heapq.heappush(ready, index)
    return order


def _needed(node: Any, depth: int) -> set[str]:
    """Names a node takes from its graph, those used inside its subgraphs included."""
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        if depth == 0:
            raise ModelError("The model nests graphs too deeply", EXPORT)
        inner = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        inner |= {name for other in graph.node for name in other.output}
        wanted = {value.name for value in graph.output}
        for other in graph.node:
            wanted |= _needed(other, depth - 1)
        names |= wanted - inner
    return names
