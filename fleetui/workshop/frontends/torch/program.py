"""Walks an exported program's graph and has each ATen operator's handler make nodes of ours.

Names stand for tensors, whole numbers (sizes) or lists. Operators that write into their argument rebind its name;
where the argument shares memory with another tensor that is no longer the same thing, and ``NeedsDecomposition``
asks for the functional form, which PyTorch itself makes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError, ShapeError, UnsupportedError
from fleetui.workshop.frontends.base import Port, Problem
from fleetui.workshop.frontends.emit import Emit
from fleetui.workshop.frontends.summary import settle_all
from fleetui.workshop.frontends.torch.archive import DTYPES, Program
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Value
from fleetui.workshop.options import InputSpec

_ABSENT = object()


class NeedsDecomposition(Exception):  # noqa: N818 - not an error: another way is taken
    """The graph has to be made functional by PyTorch first."""


class Args:
    """One node's arguments by name, decoded. What an older PyTorch leaves out has the default given here."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def get(self, name: str, default: Any = None) -> Any:
        value = self._values.get(name, _ABSENT)
        return default if value is _ABSENT or value is None else value

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def need(self, name: str) -> Any:
        value = self._values.get(name)
        if value is None:
            raise ModelError(f"An operator lacks its argument {name!r}", "Export the model again")
        return value

    def tensor(self, name: str) -> Value:
        value = self.need(name)
        if not isinstance(value, Value):
            raise UnsupportedError(f"The argument {name!r} is no tensor", "Export the model again")
        return value

    def maybe(self, name: str) -> Value | None:
        return self.tensor(name) if self.has(name) else None

    def ints(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        value = self.get(name, default)
        if value is None:
            raise ModelError(f"An operator lacks its argument {name!r}", "Export the model again")
        return [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]

    def names(self) -> list[str]:
        return list(self._values)


Handler = Callable[["Importer", Args], Any]
TABLE: dict[str, Handler] = {}
"""ATen operator without its overload (or with it, which goes before) → handler."""

VIEWS = {
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t", "squeeze", "unsqueeze",
    "expand", "expand_as", "view_as", "slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind",
    "detach", "alias", "contiguous", "to", "movedim", "swapaxes", "diagonal", "unfold", "dropout", "reshape_as",
    "broadcast_to", "numpy_T", "mT", "unsafe_split", "tensor_split", "type_as", "lift_fresh", "positive",
}  # fmt: skip
IGNORED = {
    "_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size",
    "_assert_async", "manual_seed",
}  # fmt: skip
PYTHON: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv,
    "mod": operator.mod, "truediv": operator.truediv, "neg": operator.neg, "pow": operator.pow, "eq": operator.eq,
    "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "and_": operator.and_, "or_": operator.or_, "not_": operator.not_, "sym_max": max, "sym_min": min,
    "sym_int": int, "sym_float": float, "sym_not": operator.not_, "ceil": math.ceil, "floor": math.floor,
    "trunc": math.trunc, "sym_sqrt": math.sqrt, "sym_sum": sum,
}  # fmt: skip


def on(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler for ATen operators: ``add`` for every overload, ``mean.dim`` for one."""

    def register(handler: Handler) -> Handler:
        for name in names:
            TABLE[name] = handler
        return handler

    return register


def _load_handlers() -> None:
    from fleetui.workshop.frontends.torch import (
        einsum,
        lookup,
        nn,
        pointwise,
        pools,
        recurrent,
        reductions,
        shapes,
    )

    assert all((einsum, lookup, nn, pointwise, pools, recurrent, reductions, shapes))


@dataclass(slots=True)
class Target:
    """``torch.ops.aten.add_.Tensor`` in its parts."""

    namespace: str
    name: str
    overload: str

    @property
    def inplace(self) -> bool:
        return self.namespace == "aten" and self.name.endswith("_") and not self.name.endswith("__")

    @property
    def plain(self) -> str:
        return self.name[:-1] if self.inplace else self.name

    def handler(self) -> Handler | None:
        if self.namespace != "aten":
            return None
        return TABLE.get(f"{self.plain}.{self.overload}") or TABLE.get(self.plain)

    @classmethod
    def parse(cls, text: str) -> Target:
        parts = text.removeprefix("torch.ops.").split(".")
        if text.startswith("torch.ops.") and len(parts) >= 2:
            return cls(parts[0], parts[1], parts[2] if len(parts) > 2 else "default")
        return cls("python", parts[-1], "")


@dataclass(slots=True)
class Importer:
    program: Program
    inputs: Sequence[InputSpec] = ()
    b: Builder = field(default_factory=lambda: Builder("model"))
    e: Emit = field(init=False)
    names: dict[str, Any] = field(default_factory=dict)
    _twins: dict[str, set[str]] = field(default_factory=dict)
    _families: dict[str, set[str]] = field(default_factory=dict)
    _last_use: dict[str, int] = field(default_factory=dict)
    out_dtype: str = ""
    """What the graph says the current node's first output is: PyTorch's promotion, already worked out."""

    def __post_init__(self) -> None:
        _load_handlers()
        self.e = Emit(self.b)

    # ------------------------------------------------------------ ports

    def input_ports(self) -> list[Port]:
        found = [
            spec["user_input"]["arg"] for spec in self.program.signature["input_specs"] if spec.get("user_input")
        ]
        return [self._port(str(arg["as_tensor"]["name"])) for arg in found if arg.get("as_tensor")]

    def output_ports(self) -> list[Port]:
        return [self._port(name) for name in self._outputs()]

    def _outputs(self) -> list[str]:
        found = []
        for spec in self.program.signature["output_specs"]:
            for kind in ("user_output", "loss_output"):
                if spec.get(kind):
                    arg = spec[kind]["arg"]
                    name = arg["as_tensor"]["name"] if arg.get("as_tensor") else arg.get("name")
                    if name is not None:
                        found.append(str(name))
        return found

    def mutations(self) -> list[str]:
        return [
            str(spec["buffer_mutation"]["buffer_name"])
            for spec in self.program.signature["output_specs"]
            if spec.get("buffer_mutation")
        ]

    def _port(self, name: str) -> Port:
        meta = self.program.graph["tensor_values"][name]
        shape = tuple(d["as_int"] if d.get("as_int") is not None else _symbol(d) for d in meta["sizes"])
        return Port(name, shape, self._dtype(meta["dtype"]))

    def _dtype(self, code: int) -> str:
        try:
            return DTYPES[int(code)]
        except KeyError:
            raise UnsupportedError(
                "The model uses complex or 8-bit float numbers, which are not supported", "Convert it to float32"
            ) from None

    # ------------------------------------------------------------ the walk

    def problems(self) -> list[Problem]:
        """What stands in the way, without importing anything."""
        found: list[Problem] = []
        for node in self.program.graph["nodes"]:
            target = Target.parse(str(node["target"]))
            if target.name in IGNORED or (target.namespace == "python" and target.name in PYTHON | {"getitem": 0}):
                continue
            if target.namespace == "aten" and (target.name.startswith("sym_") or target.handler() is not None):
                continue
            where = str(node.get("name") or "")
            found.append(Problem(str(node["target"]), where, "This operator is not supported"))
        return found

    def run(self) -> Graph:
        program = self.program
        ports = self.input_ports()
        for port, (shape, dtype) in zip(ports, settle_all(ports, self.inputs), strict=True):
            self.names[port.name] = self.b.input(port.name, shape, dtype)
        for name, data in program.tensors.items():
            self.names[name] = self.b.constant(data, name, program.dtype(name))
        for spec in program.signature["input_specs"]:
            constant = spec.get("constant_input")
            if constant:
                value = constant.get("value") or {}
                self.names[str(constant["name"])] = next((v for v in value.values() if v is not None), None)
        nodes = program.graph["nodes"]
        for at, node in enumerate(nodes):
            for argument in node["inputs"]:
                self._last_use.update(dict.fromkeys(_used(argument["arg"]), at))
        self._last_use.update(dict.fromkeys(self._outputs(), len(nodes)))
        for at, node in enumerate(nodes):
            self._node(node, at)
        taken: set[str] = set()
        for name in self._outputs():
            public = name
            while public in taken:
                public += "_again"
            taken.add(public)
            value = self._tensor(name)
            self.b.source = public
            self.b.output(value, public)
        return self.b.finish()

    def _tensor(self, name: str) -> Value:
        value = self.names.get(name, _ABSENT)
        if not isinstance(value, Value):
            raise ModelError(f"The graph uses {name!r:.80}, which it never makes", "Export the model again")
        return value

    def _node(self, node: dict[str, Any], at: int) -> None:
        target = Target.parse(str(node["target"]))
        outputs = [name for out in node["outputs"] for name in _output_names(out)]
        self.b.source = str(node.get("name") or (outputs[0] if outputs else "") or target.name)
        if target.name in IGNORED:
            return
        args = Args({str(a["name"]): self._argument(a["arg"]) for a in node["inputs"]})
        if target.namespace == "python" or target.name.startswith("sym_"):
            self._bind(node["outputs"], [self._python(target, args, node)])
            return
        handler = target.handler()
        if handler is None:
            raise UnsupportedError(
                f"The operator {node['target']} at {self.b.source} is not supported", "Replace it in the model",
                operator=str(node["target"]), node=self.b.source,
            )  # fmt: skip
        meta = self.program.graph["tensor_values"].get(outputs[0]) if outputs else None
        self.out_dtype = self._dtype(meta["dtype"]) if meta else ""
        with np.errstate(all="ignore"):
            made = handler(self, args)
        if made is None:
            raise ShapeError(f"at {self.b.source}: {target.name} gave nothing")
        self._bind(node["outputs"], list(made) if isinstance(made, list | tuple) else [made])
        self._alias(target, node, outputs, at)

    def _alias(self, target: Target, node: dict[str, Any], outputs: list[str], at: int) -> None:
        """Keep track of who shares memory with whom, and rebind what was written to.

        A tensor and its views are a family. Writing into a member is plain rebinding if nobody uses the others
        afterwards; names of one and the same tensor (an operator in place gives its argument back) go along.
        """
        first = next((_tensor_name(a["arg"]) for a in node["inputs"]), None)
        if first is None or not outputs:
            return
        if target.inplace:
            mine = self._twins.get(first, {first})
            family = self._families.get(first, mine)
            if any(self._last_use.get(name, -1) > at for name in family - mine):
                raise NeedsDecomposition(self.b.source)
            mine |= {first, outputs[0]}
            family |= mine
            for name in mine:
                self._twins[name] = mine
                self.names[name] = self.names[outputs[0]]
            for name in family:
                self._families[name] = family
        elif target.plain in VIEWS:
            family = self._families.get(first, {first})
            family |= set(outputs)
            for name in family:
                self._families[name] = family

    def _python(self, target: Target, args: Args, node: dict[str, Any]) -> Any:
        values = [args.get(name) for name in args.names()]
        if target.name in {"sym_size", "sym_stride", "sym_numel"}:
            x = args.tensor("self") if args.has("self") else values[0]
            if target.name == "sym_numel":
                return x.size
            if target.name == "sym_size":
                return x.shape[int(args.get("dim", values[-1]))]
        call = PYTHON.get(target.name)
        if call is None or any(isinstance(v, Value) for v in values):
            raise UnsupportedError(
                f"The operator {node['target']} at {self.b.source} is not supported", "Replace it in the model",
                operator=str(node["target"]), node=self.b.source,
            )  # fmt: skip
        if call is operator.pow and (abs(values[0]) > 1 << 20 or abs(values[1]) > 64):
            raise ModelError("The graph works out an absurd size", "Export the model again")
        return call(*values)

    def _bind(self, outputs: list[dict[str, Any]], made: list[Any]) -> None:
        flat: list[str] = []
        for out in outputs:
            flat += _output_names(out)
        for name, value in zip(flat, made, strict=False):
            self.names[name] = value

    # ------------------------------------------------------------ arguments

    def _argument(self, arg: dict[str, Any]) -> Any:
        for kind, value in arg.items():
            if value is None:
                continue
            if kind == "as_none":
                return None
            if kind == "as_tensor":
                return self._tensor(str(value["name"]))
            if kind == "as_tensors":
                return [self._tensor(str(v["name"])) for v in value]
            if kind == "as_optional_tensors":
                return [self._tensor(str(v["as_tensor"]["name"])) if v.get("as_tensor") else None for v in value]
            if kind in {"as_sym_int", "as_sym_bool", "as_sym_float"}:
                return self._number(value)
            if kind in {"as_sym_ints", "as_sym_floats", "as_sym_bools"}:
                return [self._number(v) for v in value]
            if kind == "as_scalar_type":
                return self._dtype(value)
            return value
        return None

    def _number(self, value: dict[str, Any]) -> Any:
        if value.get("as_name") is not None:
            return self.names[str(value["as_name"])]
        return next(v for v in value.values() if v is not None)


def _tensor_name(arg: dict[str, Any]) -> str | None:
    return str(arg["as_tensor"]["name"]) if arg.get("as_tensor") else None


def _used(arg: dict[str, Any]) -> list[str]:
    """The tensors that an argument names."""
    if arg.get("as_tensor"):
        return [str(arg["as_tensor"]["name"])]
    many = [v for kind in ("as_tensors", "as_optional_tensors") for v in arg.get(kind) or []]
    return [str((v.get("as_tensor") or v)["name"]) for v in many if v.get("as_tensor") or v.get("name")]


def _symbol(size: dict[str, Any]) -> str:
    return str(size["as_expr"]["expr_str"])


def _output_names(out: dict[str, Any]) -> list[str]:
    for kind, value in out.items():
        if value is None or kind == "as_none":
            continue
        if kind == "as_tensor":
            return [str(value["name"])]
        if kind == "as_tensors":
            return [str(v["name"]) for v in value]
        if isinstance(value, dict) and value.get("as_name") is not None:
            return [str(value["as_name"])]
        if isinstance(value, dict) and value.get("name") is not None:
            return [str(value["name"])]
    return ["_"]
