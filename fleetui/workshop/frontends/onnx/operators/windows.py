"""Windows that slide over space: padding rules shared with the convolutions, pools, unpooling, response norms.

ONNX is channel first; the primitives are channel last. Every operator here goes there and back by a transpose, and
a later pass cancels what meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

from fleetui.workshop.frontends.onnx.call import Call, Handler, Result, operator
from fleetui.workshop.graph.ir import Value


def to_last(c: Call, x: Value) -> Value:
    return c.transpose(x, [0, *range(2, x.rank), 1])


def to_first(c: Call, x: Value) -> Value:
    return c.transpose(x, [0, x.rank - 1, *range(1, x.rank - 1)])


@dataclass(frozen=True, slots=True)
class Window:
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    out: tuple[int, ...]

    def cut(self, c: Call, x: Value) -> tuple[Value, Window]:
        """Negative padding takes away from a channel-first input."""
        if all(low >= 0 and high >= 0 for low, high in self.pads):
            return x, self
        for axis, (low, high) in enumerate(self.pads, 2):
            x = c.cut(x, axis, max(0, -low), x.shape[axis] - max(0, -high))
        return x, replace(self, pads=tuple((max(0, low), max(0, high)) for low, high in self.pads))


def window(c: Call, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
    """Strides, dilations, padding and the sizes that come out, by all of ONNX's rules."""
    rank = len(sizes)
    strides, dilations = c.integers("strides", [1] * rank), c.integers("dilations", [1] * rank)
    pads = c.integers("pads", [0] * 2 * rank)
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        c.broken(f"has a window, strides, dilations or padding that do not fit {rank} spatial dimensions")
    if min([*kernel, *strides, *dilations]) < 1:
        c.broken("has a window, stride or dilation below one")
    auto = c.text("auto_pad", "NOTSET")
    up = c.flag("ceil_mode")
    pairs: list[tuple[int, int]] = []
    outs: list[int] = []
    for i, size in enumerate(sizes):
        reach = (kernel[i] - 1) * dilations[i] + 1
        low, high = pads[i], pads[i + rank]
        if auto in {"SAME_UPPER", "SAME_LOWER"}:
            total = max(0, (ceil(size / strides[i]) - 1) * strides[i] + reach - size)
            small, large = total // 2, total - total // 2
            low, high = (small, large) if auto == "SAME_UPPER" else (large, small)
            out = ceil(size / strides[i])
        elif auto == "VALID":
            low, high = 0, 0
            out = ceil((size - reach + 1) / strides[i])
        else:
            steps = (size + low + high - reach) / strides[i]
            out = (ceil(steps) if up else int(steps // 1)) + 1
            if up and (out - 1) * strides[i] >= size + low:
                out -= 1  # a window that begins beyond the input sees nothing
        if out < 0 or (out == 0 and size > 0) or size + low + high < 0:
            c.misfit(f"slides a window of {reach} over {size} elements")
        pairs.append((low, high))
        outs.append(out)
    return Window(tuple(kernel), tuple(strides), tuple(pairs), tuple(dilations), tuple(outs))


def _pooled(c: Call, x: Value) -> tuple[Value, Window]:
    spatial = x.rank - 2
    if not 1 <= spatial <= 3:
        c.refuse(f"runs over {spatial} spatial dimensions; we do 1 to 3")
    return window(c, x.shape[2:], c.integers("kernel_shape")).cut(c, x)


def pool_of(c: Call, kind: str, **more: int | bool) -> Value:
    x, at = _pooled(c, c.value(0))
    out = c.op(
        "pool",
        to_last(c, x),
        kind=kind,
        kernel=at.kernel,
        strides=at.strides,
        pads=at.pads,
        dilations=at.dilations,
        out=at.out,
        **{"count_include_pad": False, "p": 2, **more},
    )
    return to_first(c, out)


@operator("MaxPool")
def max_pool(c: Call) -> Result:
    if not c.wants(1):
        return pool_of(c, "max")
    x, at = _pooled(c, c.value(0))
    out, index = c.ops(
        "pool_indices",
        to_last(c, x),
        kind="max",
        kernel=at.kernel,
        strides=at.strides,
        pads=at.pads,
        dilations=at.dilations,
        out=at.out,
        count_include_pad=False,
        storage_order=c.integer("storage_order", 0),
    )
    return [to_first(c, out), to_first(c, index)]


@operator("AveragePool")
def average_pool(c: Call) -> Result:
    return pool_of(c, "avg", count_include_pad=c.flag("count_include_pad"))


@operator("LpPool")
def lp_pool(c: Call) -> Result:
    p = int(c.real("p", 2)) if c.version < 2 else c.integer("p", 2)
    return pool_of(c, "l2" if p == 2 else "lp", p=p)


def _global(kind: str) -> Handler:
    def handler(c: Call) -> Result:
        x = c.value(0)
        return c.reduce(x, kind, range(2, x.rank))

    return handler


operator("GlobalAveragePool")(_global("mean"))
operator("GlobalMaxPool")(_global("max"))


@operator("GlobalLpPool")
def global_lp_pool(c: Call) -> Result:
    x = c.value(0)
    p = int(c.real("p", 2)) if c.version < 2 else c.integer("p", 2)
    size = c.op("abs", x)
    if p == 1:
        return c.reduce(size, "sum", range(2, x.rank))
    if p == 2:
        return c.op("sqrt", c.reduce(c.op("mul", x, x), "sum", range(2, x.rank)))
    total = c.reduce(c.op("pow", size, c.scalar(p, x)), "sum", range(2, x.rank))
    return c.op("pow", total, c.scalar(1 / p, x))


@operator("MaxUnpool")
def max_unpool(c: Call) -> Result:
    x, index = c.value(0), c.value(1)
    spatial = x.rank - 2
    kernel = c.integers("kernel_shape")
    strides, pads = c.integers("strides", [1] * spatial), c.integers("pads", [0] * 2 * spatial)
    own = [(x.shape[2 + i] - 1) * strides[i] - pads[i] - pads[i + spatial] + kernel[i] for i in range(spatial)]
    out = to_first(c, c.op("unpool", to_last(c, x), to_last(c, index), out=tuple(own)))
    if c.opt(2) is None:
        return out
    want = c.ints_of(2, "output shape")
    if len(want) != x.rank or list(want[:2]) != list(x.shape[:2]):
        c.misfit(f"unpools {list(x.shape)} to {want}")
    if want[2:] == own:
        return out
    if any(w < o for w, o in zip(want[2:], own, strict=True)):
        # The indices count in the larger tensor they were taken from: only its shape can say where they lie.
        c.misfit(f"unpools to {want}, which is smaller than its windows reach")
    grow = (0, 0, *(w - o for w, o in zip(want[2:], own, strict=True)))
    return c.op("pad", out, before=(0,) * x.rank, after=grow, mode="constant", value=0)


@operator("LRN")
def lrn(c: Call) -> Result:
    x = c.value(0)
    if x.rank < 2 or not prod(x.shape):
        c.misfit(f"normalises {list(x.shape)} over its channels")
    out = c.op(
        "lrn",
        to_last(c, x),
        size=c.integer("size"),
        alpha=c.real("alpha", 1e-4),
        beta=c.real("beta", 0.75),
        bias=c.real("bias", 1.0),
    )
    return to_first(c, out)
