"""From a checked ONNX model to a ``Graph``: names to values, nodes to handlers, functions and subgraphs inlined.

Knows nothing of single operators (``operators/`` does) and nothing of files (``reading`` does). With ``collect``
the import goes on after a node that is refused, as far as it can without it, and gathers every problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from fleetui.common.domain.errors import BugError
from fleetui.workshop.errors import LimitError, ModelError, ShapeError, UnsupportedError, WorkshopError
from fleetui.workshop.frontends.base import Problem
from fleetui.workshop.frontends.onnx.call import (
    CONTRIB,
    OPERATORS,
    REFUSED,
    Call,
    Item,
    Maybe,
    NeedsConstant,
    TensorList,
)
from fleetui.workshop.frontends.onnx.frames import POISON, Frame, Pending, Poisoned, plain
from fleetui.workshop.frontends.onnx.reading import Source, title_of
from fleetui.workshop.frontends.onnx.tensors import EXPORT, dtype_name, dtype_title, to_array
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Graph, Node, Value, numpy_dtype
from fleetui.workshop.options import InputSpec

NODES = 200_000
"""More nodes than this, after loops are unrolled, are refused."""
TENSOR_BYTES = 1 << 35
CALLS = 64
"""Functions inside functions."""
NESTING = (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, OverflowError, AttributeError)
"""What numpy and Python say about nonsense in a model that got past the checks."""


FOUR_BITS = frozenset({"int4", "uint4"})
TREES = "fleetui.workshop.frontends.onnx_ml"


class Importer:
    """``fixed``: inputs of the model whose numbers are known when compiling; they become constants."""

    def __init__(
        self,
        source: Source,
        specs: Sequence[InputSpec] = (),
        fixed: Mapping[str, Array] | None = None,
        *,
        name: str = "",
        collect: bool = False,
    ) -> None:
        from fleetui.workshop.frontends.onnx import operators

        operators.load()
        self.source = source
        self.specs = {spec.name: spec for spec in specs}
        self.fixed = dict(fixed or {})
        self.builder = Builder(name or source.model.graph.name or "model")
        self.problems: list[Problem] = []
        self.collect = collect
        self.symbols: dict[str, int] = {}
        self.defaulted: list[str] = []
        self._made: dict[Value, Node] = {}
        self._told: set[tuple[str, str]] = set()

    # ------------------------------------------------------------ whole model

    def run(self) -> Graph:
        graph = self.source.model.graph
        frame = Frame({}, self.source.opsets)
        weights = {tensor.name: tensor for tensor in graph.initializer}
        for name, tensor in weights.items():
            if name not in self.specs:
                frame.names[name] = Pending(tensor)
        self._settle(graph.input, weights)
        for value in graph.input:
            if value.name not in weights or value.name in self.specs:
                frame.names[value.name] = self._input(value)
        self.nodes(graph.node, frame)
        for value in graph.output:
            self._output(value.name, frame)
        built = self.builder.finish()
        built.notes["symbolic"] = dict(self.symbols)
        return built

    def _settle(self, inputs: Sequence[Any], weights: Mapping[str, Any]) -> None:
        """Sizes of symbolic dimensions from what was asked for."""
        declared = {value.name for value in inputs}
        for name in self.specs:
            if name not in declared:
                known = ", ".join(sorted(declared - set(weights))) or "none"
                raise ShapeError(
                    f"The model has no input called '{name}'; its inputs are: {known}", "Use one of these"
                )
        for value in inputs:
            spec = self.specs.get(value.name)
            if (
                spec is None
                or not value.type.HasField("tensor_type")
                or not value.type.tensor_type.HasField("shape")
            ):
                continue
            dims = value.type.tensor_type.shape.dim
            if len(dims) != len(spec.shape):
                raise ShapeError(
                    f"The input '{value.name}' has {len(dims)} dimensions, but {len(spec.shape)} were given",
                    "Give one size for each",
                )
            for dim, size in zip(dims, spec.shape, strict=True):
                if not dim.dim_param:
                    continue
                known_size = self.symbols.setdefault(dim.dim_param, size)
                if known_size != size:
                    raise ShapeError(
                        f"The dimension '{dim.dim_param}' was given the sizes {known_size} and {size}",
                        "Give it one size in all inputs",
                    )

    def _input(self, value: Any) -> Item:
        title = f"The input '{value.name}'"
        if not value.type.HasField("tensor_type"):
            kind = (value.type.WhichOneof("value") or "nothing").replace("_type", "")
            raise UnsupportedError(f"{title} is a {kind}, not a tensor", "Export the model with tensors as inputs")
        declared = value.type.tensor_type
        dtype = dtype_name(declared.elem_type)
        if not dtype:
            raise UnsupportedError(
                f"{title} holds {dtype_title(declared.elem_type)}, which we do not compute with",
                "Export the model with numbers as inputs",
            )
        if dtype in FOUR_BITS and value.name not in self.fixed:
            raise UnsupportedError(
                f"{title} holds {dtype}; four bits are for weights only", "Feed the model with eight bits or more"
            )
        spec = self.specs.get(value.name)
        if spec is not None and spec.dtype and spec.dtype != dtype:
            raise ShapeError(f"{title} is {dtype}, but {spec.dtype} was asked for", f"Leave it at {dtype}")
        shape = self._shape(value, spec)
        if prod(shape) * 8 > TENSOR_BYTES:
            raise LimitError(f"{title} would have {prod(shape):,} elements", "Give smaller sizes")
        if value.name in self.fixed:
            array = np.asarray(self.fixed[value.name])
            return self.builder.constant(array, name=value.name, dtype=dtype)
        made = self.builder.input(value.name, shape, dtype)
        return self._empty(made)

    def _shape(self, value: Any, spec: InputSpec | None) -> tuple[int, ...]:
        declared = value.type.tensor_type
        if not declared.HasField("shape"):
            if spec is None:
                raise ShapeError(
                    f"The model does not say which shape its input '{value.name}' has",
                    f"Give it: --input {value.name}=1x…",
                )
            return spec.shape
        shape: list[int] = []
        for index, dim in enumerate(declared.shape.dim):
            asked = spec.shape[index] if spec is not None else None
            if dim.HasField("dim_value"):
                size = int(dim.dim_value)
                if asked is not None and asked != size:
                    raise ShapeError(
                        f"The input '{value.name}' has {size} at dimension {index}, but {asked} was asked for",
                        "Only symbolic dimensions can be chosen",
                    )
            elif asked is not None:
                size = asked
            else:
                name = dim.dim_param or f"{value.name}[{index}]"
                if name not in self.symbols:
                    self.symbols[name] = 1
                    self.defaulted.append(name)
                size = self.symbols[name]
            if size < 0:
                raise ModelError(f"The input '{value.name}' has the size {size} at dimension {index}", EXPORT)
            shape.append(size)
        return tuple(shape)

    def _output(self, name: str, frame: Frame) -> None:
        try:
            found = self.lookup(name, frame, "the model's output")
        except Poisoned:
            return
        item = found.item if isinstance(found, Maybe) else found
        if not isinstance(item, Value):
            problem = UnsupportedError(
                f"The output '{name}' is a sequence or empty, not a tensor",
                "Export the model with tensors as outputs",
            )
            self._refused(problem, "output", name)
            return
        node = self._made.get(item)
        taken = {value.name for value in [*self.builder.graph.inputs, *self.builder.graph.outputs]}
        if node is not None and item not in self.builder.graph.outputs and name not in taken:
            item.name = name
        self.builder.source = ""
        self.builder.output(item, name)

    # ------------------------------------------------------------ nodes

    def nodes(self, nodes: Sequence[Any], frame: Frame) -> None:
        for node in nodes:
            try:
                self.node(node, frame)
            except (Poisoned, UnsupportedError) as error:
                if not self.collect:
                    raise
                if isinstance(error, UnsupportedError):
                    self._refused(error, node.op_type, title_of(node))
                for name in filter(None, node.output):
                    frame.names[name] = POISON

    def _refused(self, error: UnsupportedError, operator: str, label: str) -> None:
        if not self.collect:
            raise error
        key = (error.node or label, error.sentence)
        if key not in self._told:
            self._told.add(key)
            self.problems.append(Problem(error.operator or operator, error.node or label, str(error)))

    def node(self, node: Any, frame: Frame) -> None:
        domain = "" if node.domain == "ai.onnx" else node.domain
        label = frame.prefix + title_of(node)
        function = self.source.functions.get((node.domain, node.op_type, getattr(node, "overload", "")))
        handler = None if function is not None else self._handler(domain, node.op_type, label)
        inputs = [self.lookup(name, frame, label) if name else None for name in node.input]
        attrs = {a.name: value for a in node.attribute if (value := plain(a, frame, label)) is not None}
        self.builder.source = f"{node.op_type} '{label}'"
        if function is not None:
            results: Any = self._inline(function, inputs, attrs, frame, label)
        else:
            call = Call(
                self, frame, node.op_type, label, frame.opsets.get(domain, 1), inputs, attrs, list(node.output)
            )
            results = self._guarded(handler, call) if handler else self._trees(node, call)
        items: list[Item | None] = list(results) if isinstance(results, (list, tuple)) else [results]
        for index, name in enumerate(node.output):
            if not name:
                continue
            item = items[index] if index < len(items) else None
            if item is None:
                raise UnsupportedError(
                    f"{node.op_type} '{label}' is asked for its output {index}, which we do not compute",
                    operator=node.op_type,
                    node=label,
                )
            frame.names[name] = item

    def _guarded(self, handler: Callable[[Call], Any], call: Call) -> Any:
        try:
            return handler(call)
        except (WorkshopError, Poisoned, BugError):
            raise
        except NESTING as error:
            words = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ModelError(f"{call.where} does not hold together: {words}", EXPORT) from error

    def _handler(self, domain: str, op_type: str, label: str) -> Callable[[Call], Any] | None:
        if domain == "ai.onnx.ml" and op_type in trees():
            return None
        table = {"": OPERATORS, "com.microsoft": CONTRIB}.get(domain, {})
        if op_type in table:
            return table[op_type]
        # Graph optimisers write some default-domain operators under their own domain.
        raise unknown(domain, op_type, label)

    def _trees(self, node: Any, call: Call) -> Any:
        def work(inner: Call) -> Any:
            return trees()[node.op_type](self, node, [None if i is None else i for i in inner.inputs])

        return self._guarded(work, call)

    def lookup(self, name: str, frame: Frame, label: str) -> Item:
        found = frame.find(name)
        if found is None:
            raise ModelError(f"'{label}' uses '{name}', which nothing makes", EXPORT)
        home, item = found
        if item is POISON:
            raise Poisoned
        if isinstance(item, Pending):
            item = home[name] = self.weight(item.tensor)
        return item

    def weight(self, tensor: Any, name: str = "") -> Value:
        if not dtype_name(tensor.data_type):
            raise UnsupportedError(
                f"The weight '{tensor.name or name}' holds {dtype_title(tensor.data_type)}, "
                "which we do not compute with",
                operator="weight",
                node=tensor.name or name,
            )
        array = to_array(tensor, self.source.folder, name)
        return self.builder.constant(array, name=tensor.name or name, dtype=dtype_name(tensor.data_type))

    # ------------------------------------------------------------ attributes, functions, graphs

    def attributes(self, node: Any) -> dict[str, Any]:
        """All attributes of a node outside of functions, as plain Python, for importers that live elsewhere."""
        top = Frame({}, self.source.opsets)
        return {a.name: plain(a, top, title_of(node)) for a in node.attribute}

    def _inline(
        self, function: Any, inputs: list[Item | None], attrs: dict[str, Any], frame: Frame, label: str
    ) -> list[Item | None]:
        if frame.depth >= CALLS:
            raise ModelError(f"The function '{function.name}' calls itself", EXPORT)
        if len(inputs) > len(function.input):
            raise ModelError(f"'{label}' gives {len(inputs)} inputs to a function of {len(function.input)}", EXPORT)
        bound = dict(attrs)
        for default in function.attribute_proto:
            if default.name not in bound:
                bound[default.name] = plain(default, frame, label)
        names: dict[str, Any] = dict(zip(function.input, [*inputs, *[None] * len(function.input)], strict=False))
        opsets = {("" if e.domain == "ai.onnx" else e.domain): int(e.version) for e in function.opset_import}
        inner = Frame(names, opsets or frame.opsets, None, bound, f"{label}/", frame.depth + 1)
        self.nodes(function.node, inner)
        results: list[Item | None] = []
        for name in function.output:
            found = inner.find(name)
            results.append(None if found is None or found[1] is None else self.lookup(name, inner, label))
        return results

    def graph(self, graph: Any, call: Call, inputs: Sequence[Item | None], step: str = "") -> list[Item]:
        """A subgraph inlined; what it does not make itself comes from around it."""
        if len(inputs) > len(graph.input):
            call.broken(f"gives {len(inputs)} values to a graph that takes {len(graph.input)}")
        names: dict[str, Any] = {tensor.name: Pending(tensor) for tensor in graph.initializer}
        names.update({value.name: item for value, item in zip(graph.input, inputs, strict=False)})
        inner = Frame(
            names, call.frame.opsets, call.frame, call.frame.bound, f"{call.label}{step}/", call.frame.depth + 1
        )
        if inner.depth > CALLS:
            call.broken("nests graphs too deeply")
        outer_source = self.builder.source
        self.nodes(graph.node, inner)
        self.builder.source = outer_source
        return [self.lookup(value.name, inner, call.label) for value in graph.output]

    # ------------------------------------------------------------ emitting

    def emit(self, op: str, *inputs: Value | None, **attrs: Any) -> list[Value]:
        if len(self.builder.graph.nodes) > NODES:
            raise LimitError(
                f"The model has more than {NODES:,} operations once its loops are unrolled", "Use shorter loops"
            )
        outs = self.builder.ops(op, *inputs, **attrs)
        nodes = self.builder.graph.nodes
        if any(out.dtype in FOUR_BITS and out.data is None and out.size for out in outs):
            raise UnsupportedError(
                f"{self.builder.source} computes a tensor of {outs[0].dtype}; four bits are for weights only",
                "Keep what is computed in eight bits or more",
                operator=self.builder.source.partition(" ")[0],
                node=self.builder.source.partition(" '")[2].rstrip("'"),
            )
        if nodes and nodes[-1].outputs and nodes[-1].outputs[0] is outs[0]:
            for out in outs:
                if out.size * 8 > TENSOR_BYTES:
                    raise LimitError(
                        f"At {self.builder.source} a tensor has {out.size:,} elements", "Give smaller sizes"
                    )
                self._made[out] = nodes[-1]
        return [self._empty(out) for out in outs]

    def _empty(self, value: Value) -> Value:
        """A tensor without elements is known already, whatever it is computed from."""
        if value.data is not None or value.size:
            return value
        return self.builder.constant(np.zeros(value.shape, numpy_dtype(value.dtype)), dtype=value.dtype)

    def roots(self, value: Value) -> tuple[str, ...]:
        """Names of the model's inputs that a value is computed from."""
        found: dict[str, None] = {}
        seen: set[Value] = set()
        stack = [value]
        while stack:
            at = stack.pop()
            if at in seen or at.data is not None:
                continue
            seen.add(at)
            node = self._made.get(at)
            if node is None:
                found.setdefault(at.name)
            else:
                stack.extend(v for v in node.inputs if v is not None)
        return tuple(sorted(found))


def unknown(domain: str, op_type: str, label: str) -> UnsupportedError:
    if domain == "" and op_type in REFUSED:
        sentence = f"{op_type} '{label}' {REFUSED[op_type]}"
    else:
        sentence = f"The operator {op_type} of '{domain or 'ai.onnx'}', at '{label}', is not one we can compile"
    return UnsupportedError(sentence, "Replace or remove it before exporting", operator=op_type, node=label)


def trees() -> Mapping[str, Callable[..., Any]]:
    """Operators of ``ai.onnx.ml``, which live in a module of their own."""
    import importlib
    import importlib.util

    if importlib.util.find_spec(TREES) is None:
        return {}
    found: Mapping[str, Callable[..., Any]] = importlib.import_module(TREES).OPERATORS
    return found


__all__ = ["Frame", "Importer", "NeedsConstant", "TensorList", "trees", "unknown"]
