"""Matrix products, fully connected layers, einsum, convolutions and their transposes (integer forms elsewhere)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Result, operator
from fleetui.workshop.frontends.onnx.operators.windows import Window, to_first, to_last, window
from fleetui.workshop.graph.ir import Value


def matmul_of(c: Call, a: Value, b: Value) -> Value:
    """Numpy's rule; weights go into ``dense``, which knows them to be two-dimensional."""
    if a.rank == 0 or b.rank == 0:
        c.misfit("multiplies a scalar as a matrix")
    if b.rank == 1:
        out = matmul_of(c, a, c.reshape(b, [b.size, 1]))
        return c.squeeze(out, [out.rank - 1])
    if a.rank == 1:
        out = matmul_of(c, c.reshape(a, [1, a.size]), b)
        return c.squeeze(out, [out.rank - 2])
    if b.rank == 2 and b.data is not None and a.data is None:
        return c.op("dense", a, b, None)
    return c.op("matmul", a, b, transpose_a=False, transpose_b=False)


@operator("MatMul")
def matmul(c: Call) -> Result:
    return matmul_of(c, c.value(0), c.value(1))


@operator("Gemm")
def gemm(c: Call) -> Result:
    return gemm_of(c, c.value(0), c.value(1), c.opt(2))


def gemm_of(c: Call, a: Value, b: Value, bias: Value | None) -> Value:
    alpha, beta = c.real("alpha", 1.0), c.real("beta", 1.0)
    if a.rank != 2 or b.rank != 2:
        c.misfit(f"multiplies {list(a.shape)} and {list(b.shape)}, which are not matrices")
    if c.flag("transA"):
        a = c.transpose(a, [1, 0])
    if c.flag("transB"):
        b = c.transpose(b, [1, 0])
    if bias is not None and beta == 0:
        bias = None
    if alpha != 1:
        if b.data is not None:
            b = c.op("mul", b, c.scalar(alpha, b))
        else:
            a = c.op("mul", a, c.scalar(alpha, a))
    if bias is not None and beta != 1:
        bias = c.op("mul", bias, c.scalar(beta, bias))
    if b.data is None or a.data is not None:
        product = c.op("matmul", a, b, transpose_a=False, transpose_b=False)
        return product if bias is None else c.op("add", product, bias)
    width = b.shape[1]
    if bias is not None and bias.size in {1, width} and bias.shape[-1:] in {(width,), (1,), ()}:
        flat = c.broadcast(c.reshape(bias, [bias.size]), [width])
        return c.op("dense", a, b, flat)
    product = c.op("dense", a, b, None)
    return product if bias is None else c.op("add", product, bias)


# ---------------------------------------------------------------- einsum


@operator("Einsum")
def einsum(c: Call) -> Result:
    equation = c.text("equation").replace(" ", "")
    values = c.values()
    terms, out = _parse(c, equation, values)
    sizes: dict[str, int] = {}
    parts: list[tuple[Value, str]] = []
    for value, term in zip(values, terms, strict=True):
        if len(term) != value.rank:
            c.misfit(f"names {len(term)} axes of a tensor of rank {value.rank}")
        parts.append(_diagonal(c, value, term))
        for letter, size in zip(term, value.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                if 1 not in {size, sizes[letter]}:
                    c.misfit(f"gives the index '{letter}' the sizes {sizes[letter]} and {size}")
                sizes[letter] = max(size, sizes[letter])
    done, term = parts[0]
    for index in range(1, len(parts)):
        later = set(out).union(*(t for _, t in parts[index + 1 :]))
        done, term = _contract(c, (done, term), parts[index], later, sizes)
    done, term = _sum_out(c, done, term, set(out))
    order = [term.index(letter) for letter in out if letter in term]
    done = c.transpose(done, order)
    shape = [sizes[letter] for letter in out]
    kept = c.reshape(done, [done.shape[[x for x in out if x in term].index(x)] if x in term else 1 for x in out])
    return c.broadcast(kept, shape)


def _parse(c: Call, equation: str, values: Sequence[Value]) -> tuple[list[str], str]:
    """Terms with the ellipsis spelt out in capital Greek, aligned to the right."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(values):
        c.broken(f"has {len(values)} inputs, but the equation '{equation}' names {len(terms)}")
    hidden = [chr(0x391 + i) for i in range(24)]
    widest = max(
        (v.rank - len(t.replace("...", "")) for v, t in zip(values, terms, strict=True) if "..." in t), default=0
    )
    spelt: list[str] = []
    for value, term in zip(values, terms, strict=True):
        count = value.rank - len(term.replace("...", ""))
        if "..." in term and count < 0:
            c.misfit(f"names more axes in '{term}' than the tensor has")
        spelt.append(term.replace("...", "".join(hidden[widest - count : widest]) if "..." in term else ""))
    if arrow:
        return spelt, right.replace("...", "".join(hidden[:widest]))
    letters = "".join(spelt)
    once = sorted(x for x in set(letters) if letters.count(x) == 1 and x not in hidden)
    return spelt, "".join(hidden[:widest]) + "".join(once)


def _diagonal(c: Call, x: Value, term: str) -> tuple[Value, str]:
    """An index named twice in one term: only where the two are equal."""
    while len(set(term)) < len(term):
        letter = next(t for t in term if term.count(t) > 1)
        first = term.index(letter)
        second = term.index(letter, first + 1)
        size = x.shape[first]
        if x.shape[second] != size:
            c.misfit(f"takes the diagonal of {list(x.shape)}")
        rest = [i for i in range(x.rank) if i not in {first, second}]
        moved = c.transpose(x, [first, second, *rest])
        flat = c.reshape(moved, [size * size, *(x.shape[i] for i in rest)])
        picked = c.op("gather", flat, c.constant(np.arange(size, dtype=np.int64) * (size + 1)), axis=0)
        x, term = picked, letter + "".join(term[i] for i in rest)
    return x, term


def _sum_out(c: Call, x: Value, term: str, keep: set[str]) -> tuple[Value, str]:
    gone = [i for i, letter in enumerate(term) if letter not in keep]
    if not gone:
        return x, term
    return c.reduce(x, "sum", gone, keepdims=False), "".join(t for t in term if t in keep)


def _contract(
    c: Call, left: tuple[Value, str], right: tuple[Value, str], later: set[str], sizes: dict[str, int]
) -> tuple[Value, str]:
    """Two terms into one by a batched matrix product."""
    a, ta = _sum_out(c, *left, later | set(right[1]))
    b, tb = _sum_out(c, *right, later | set(left[1]))
    shared = [x for x in ta if x in tb]
    batch, inner = [x for x in shared if x in later], [x for x in shared if x not in later]
    rows, columns = [x for x in ta if x not in tb], [x for x in tb if x not in ta]

    def laid(value: Value, term: str, groups: list[list[str]], shape: list[int]) -> Value:
        order = [x for group in groups for x in group]
        moved = c.transpose(value, [term.index(x) for x in order])
        return c.reshape(c.broadcast(moved, [sizes[x] for x in order]), shape)

    of = [[sizes[x] for x in group] for group in (batch, rows, inner, columns)]
    nb, nr, ni, nc = (prod(s) for s in of)
    x = laid(a, ta, [batch, rows, inner], [nb, nr, ni] if batch else [nr, ni])
    if b.data is not None and not batch:
        y = laid(b, tb, [inner, columns], [ni, nc])
        out = matmul_of(c, x, y)
    else:
        y = laid(b, tb, [batch, inner, columns], [nb, ni, nc] if batch else [ni, nc])
        out = c.op("matmul", x, y, transpose_a=False, transpose_b=False)
    return c.reshape(out, [*of[0], *of[1], *of[3]]), "".join([*batch, *rows, *columns])


# ---------------------------------------------------------------- convolutions


def weights_last(c: Call, w: Value) -> Value:
    """``[M, C/g, *K]`` → ``[*K, C/g, M]``."""
    return c.transpose(w, [*range(2, w.rank), 1, 0])


def conv_window(c: Call, x: Value, w: Value) -> Window:
    spatial = x.rank - 2
    if spatial < 1 or w.rank != x.rank:
        c.misfit(f"has an input of the shape {list(x.shape)} and weights of the shape {list(w.shape)}")
    if spatial > 3:
        c.refuse(f"runs over {spatial} spatial dimensions; the most we do is 3")
    kernel = c.integers("kernel_shape", list(w.shape[2:]))
    if list(w.shape[2:]) != kernel:
        c.misfit(f"says its window is {kernel}, but its weights have the shape {list(w.shape)}")
    return window(c, x.shape[2:], kernel)


def conv_of(c: Call, x: Value, w: Value, bias: Value | None) -> Value:
    """Channel first in and out; the primitive in between is channel last."""
    at = conv_window(c, x, w)
    groups = c.integer("group", 1)
    if groups < 1 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        c.misfit(f"has {x.shape[1]} channels, {groups} groups and weights of the shape {list(w.shape)}")
    x, at = at.cut(c, x)
    out = c.op(
        "conv",
        to_last(c, x),
        weights_last(c, w),
        bias,
        strides=at.strides,
        pads=at.pads,
        dilations=at.dilations,
        groups=groups,
    )
    return to_first(c, out)


@operator("Conv")
def conv(c: Call) -> Result:
    return conv_of(c, c.value(0), c.value(1), c.opt(2))


@operator("ConvTranspose")
def conv_transpose(c: Call) -> Result:
    x, w, bias = c.value(0), c.value(1), c.opt(2)
    spatial = x.rank - 2
    if spatial < 1 or w.rank != x.rank or w.shape[0] != x.shape[1]:
        c.misfit(f"has an input of the shape {list(x.shape)} and weights of the shape {list(w.shape)}")
    if spatial > 3:
        c.refuse(f"runs over {spatial} spatial dimensions; the most we do is 3")
    groups = c.integer("group", 1)
    strides, dilations = c.integers("strides", [1] * spatial), c.integers("dilations", [1] * spatial)
    extra = list(c.integers("output_padding", [0] * spatial))
    reach = [dilations[i] * (w.shape[2 + i] - 1) + 1 for i in range(spatial)]
    full = [strides[i] * (x.shape[2 + i] - 1) + reach[i] for i in range(spatial)]
    auto = c.text("auto_pad", "NOTSET")
    pads = c.integers("pads", [0] * 2 * spatial)
    sizes = c.integers("output_shape", [])
    if sizes:
        sizes = sizes[-spatial:]
    elif auto in {"SAME_UPPER", "SAME_LOWER"}:
        # Where windows do not reach from one to the next, nothing is added to come to the full size.
        sizes = [min(strides[i] * x.shape[2 + i], full[i] + extra[i]) for i in range(spatial)]
    before, after = list(pads[:spatial]), list(pads[spatial:])
    if auto == "VALID":
        before, after = [0] * spatial, [0] * spatial
    for i, size in enumerate(sizes):
        total = full[i] + extra[i] - size
        half = total // 2 if total > 0 else 0
        before[i], after[i] = (half, total - half) if auto == "SAME_UPPER" else (total - half, half)
        if total < 0:
            before[i], after[i] = 0, total
    # Where padding is negative the result reaches beyond every window: there it is the bias alone.
    grow_before = [max(0, -p) for p in before]
    for i in range(spatial):
        if after[i] < 0:
            extra[i], after[i] = extra[i] - after[i], 0
    before = [max(0, p) for p in before]
    late = any(grow_before)
    kernel = c.transpose(w, [*range(2, w.rank), 0, 1])
    out = c.op(
        "conv_transpose",
        to_last(c, x),
        kernel,
        None if late else bias,
        strides=tuple(strides),
        pads=tuple(zip(before, after, strict=True)),
        dilations=tuple(dilations),
        output_padding=tuple(extra),
        groups=groups,
    )
    if late:
        out = c.op("pad", out, before=(0, *grow_before, 0), after=(0,) * x.rank, mode="constant", value=0)
        out = out if bias is None else c.op("add", out, bias)
    return to_first(c, out)


@operator("CausalConvWithState")
def causal_conv(c: Call) -> Result:
    """Each channel by itself, looking back only; the last inputs are carried over to the next call."""
    x, w, bias, past = c.value(0), c.value(1), c.opt(2), c.opt(3)
    if x.rank != 3 or w.rank != 3 or w.shape[:2] != (x.shape[1], 1):
        c.misfit(f"has an input of the shape {list(x.shape)} and weights of the shape {list(w.shape)}")
    back = w.shape[2] - 1
    state = past if past is not None else c.full([*x.shape[:2], back], 0, x.dtype)
    whole = c.concat([v for v in (state, x) if v.size], 2)
    out = c.op(
        "conv",
        to_last(c, whole),
        weights_last(c, w),
        bias,
        strides=(1,),
        pads=((0, 0),),
        dilations=(1,),
        groups=x.shape[1],
    )
    if c.text("activation", "none") in {"silu", "swish"}:
        out = c.op("silu", out)
    length = whole.shape[2]
    carried = c.cut(whole, 2, length - back, length) if back else c.full([*x.shape[:2], 0], 0, x.dtype)
    return [to_first(c, out), carried]
