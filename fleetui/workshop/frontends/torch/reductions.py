"""ATen's sums, means, extremes, sorts and scans."""

from __future__ import annotations

from typing import Any

from fleetui.workshop.frontends.emit import FLOATS, axes_of, axis_of
from fleetui.workshop.frontends.torch.program import Args, Handler, Importer, on
from fleetui.workshop.graph.ir import Value


def _axes(a: Args, x: Value, name: str = "dim") -> tuple[int, ...]:
    return axes_of(a.ints(name, []), x.rank)


def _keep(a: Args) -> bool:
    return bool(a.get("keepdim", False))


def _reduction(kind: str) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x = a.tensor("self")
        if kind in {"sum", "mean", "prod"}:
            x = c.e.cast(x, c.out_dtype)
        if x.dtype == "bool":  # amax and amin
            whole = c.e.reduce(kind, c.e.cast(x, "uint8"), _axes(a, x), keepdims=_keep(a))
            return c.e.cast(whole, "bool")
        return c.e.reduce(kind, x, _axes(a, x), keepdims=_keep(a))

    return handler


on("sum")(_reduction("sum"))
on("mean")(_reduction("mean"))
on("prod")(_reduction("prod"))
on("amax")(_reduction("max"))
on("amin")(_reduction("min"))
on("max.default")(_reduction("max"))
on("min.default")(_reduction("min"))


@on("any")
def _any(c: Importer, a: Args) -> Value:
    x = c.e.cast(c.e.cast(a.tensor("self"), "bool"), "uint8")
    return c.e.cast(c.e.reduce("max", x, _axes(a, x), keepdims=_keep(a)), "bool")


@on("all")
def _all(c: Importer, a: Args) -> Value:
    x = c.e.cast(c.e.cast(a.tensor("self"), "bool"), "uint8")
    return c.e.cast(c.e.reduce("min", x, _axes(a, x), keepdims=_keep(a)), "bool")


def _extreme(kind: str) -> Handler:
    def handler(c: Importer, a: Args) -> list[Value]:
        x = a.tensor("self")
        axis = axis_of(int(a.need("dim")), x.rank)
        values = c.e.reduce(kind, x, [axis], keepdims=_keep(a))
        if x.rank == 0:
            return [values, c.e.full((), 0, "int64")]
        return [values, c.b.op(f"arg{kind}", x, axis=axis, keepdims=_keep(a), last=False)]

    return handler


on("max.dim")(_extreme("max"))
on("min.dim")(_extreme("min"))


def _arg(kind: str) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x = a.tensor("self")
        if not a.has("dim"):
            flat = c.e.reshape(x, [-1])
            out = c.b.op(kind, flat, axis=0, keepdims=False, last=False)
            return c.e.reshape(out, [1] * x.rank) if _keep(a) else out
        return c.b.op(kind, x, axis=axis_of(int(a.need("dim")), x.rank), keepdims=_keep(a), last=False)

    return handler


on("argmax")(_arg("argmax"))
on("argmin")(_arg("argmin"))


def _variance(c: Importer, a: Args, x: Value) -> tuple[Value, Value]:
    axes = _axes(a, x)
    correction = a.get("correction")
    if correction is None:
        correction = 1 if a.get("unbiased", True) else 0
    mean = c.e.reduce("mean", x, axes, keepdims=True)
    off = c.b.op("sub", x, mean)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    total = c.e.reduce("sum", c.b.op("mul", off, off), axes, keepdims=_keep(a))
    spread = c.e.by("div", total, max(0.0, float(count - correction)))
    return spread, mean if _keep(a) else c.e.squeeze(mean, axes)


@on("var")
def _var(c: Importer, a: Args) -> Value:
    return _variance(c, a, a.tensor("self"))[0]


@on("std")
def _std(c: Importer, a: Args) -> Value:
    return c.b.op("sqrt", _variance(c, a, a.tensor("self"))[0])


@on("var_mean")
def _var_mean(c: Importer, a: Args) -> list[Value]:
    return list(_variance(c, a, a.tensor("self")))


@on("std_mean")
def _std_mean(c: Importer, a: Args) -> list[Value]:
    spread, mean = _variance(c, a, a.tensor("self"))
    return [c.b.op("sqrt", spread), mean]


@on("linalg_vector_norm", "norm", "frobenius_norm")
def _norm(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    order = a.get("ord", a.get("p", 2))
    order = 2.0 if order == "fro" else float(order)
    axes, keep = _axes(a, x), _keep(a)
    if order == 2:
        return c.b.op("sqrt", c.e.reduce("sum", c.b.op("mul", x, x), axes, keepdims=keep))
    size = c.b.op("abs", x)
    if order == 1:
        return c.e.reduce("sum", size, axes, keepdims=keep)
    if order in {float("inf"), float("-inf")}:
        return c.e.reduce("max" if order > 0 else "min", size, axes, keepdims=keep)
    total = c.e.reduce("sum", c.e.by("pow", size, order), axes, keepdims=keep)
    return c.e.by("pow", total, 1 / order)


@on("logsumexp")
def _logsumexp(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    axes = _axes(a, x)
    top = c.e.reduce("max", x, axes, keepdims=True)
    total = c.e.reduce("sum", c.b.op("exp", c.b.op("sub", x, top)), axes, keepdims=True)
    out = c.b.op("add", c.b.op("log", total), top)
    return out if _keep(a) else c.e.squeeze(out, axes)


def _scan(kind: str) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x = c.e.cast(a.tensor("self"), c.out_dtype)
        if x.rank == 0:
            return c.b.op("identity", x)
        return c.b.op(kind, x, axis=axis_of(int(a.need("dim")), x.rank), exclusive=False, reverse=False)

    return handler


on("cumsum")(_scan("cumsum"))
on("cumprod")(_scan("cumprod"))


@on("topk")
def _topk(c: Importer, a: Args) -> list[Value]:
    x = a.tensor("self")
    return c.b.ops(
        "topk", x, k=int(a.need("k")), axis=axis_of(int(a.get("dim", -1)), x.rank),
        largest=bool(a.get("largest", True)), sorted=bool(a.get("sorted", True)),
    )  # fmt: skip


@on("sort")
def _sort(c: Importer, a: Args) -> list[Value]:
    x = a.tensor("self")
    axis = axis_of(int(a.get("dim", -1)), x.rank)
    return c.b.ops("sort", x, axis=axis, descending=bool(a.get("descending", False)))


@on("argsort")
def _argsort(c: Importer, a: Args) -> Value:
    return _sort(c, a)[1]


def _softmax(kind: str) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x = a.tensor("self") if a.has("self") else a.tensor("input")
        if x.dtype not in FLOATS or (c.out_dtype in FLOATS and x.dtype != c.out_dtype):
            x = c.e.cast(x, c.out_dtype)
        if x.rank == 0:
            x = c.e.reshape(x, [1])
            return c.e.reshape(c.b.op(kind, x, axis=0), [])
        return c.b.op(kind, x, axis=axis_of(int(a.need("dim")), x.rank))

    return handler


on("softmax", "_softmax", "special_softmax", "_safe_softmax")(_softmax("softmax"))
on("log_softmax", "_log_softmax", "special_log_softmax")(_softmax("log_softmax"))


@on("softmin")
def _softmin(c: Importer, a: Args) -> Any:
    x = a.tensor("self")
    return c.b.op("softmax", c.b.op("neg", x), axis=axis_of(int(a.need("dim")), x.rank))
