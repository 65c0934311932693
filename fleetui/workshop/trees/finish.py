"""What a kernel makes of a row's scores: probabilities, classes, anomaly scores. As TIR, one row at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array
from fleetui.workshop.schedules.emit import choose, integer, local, number, sequence, serial, store
from fleetui.workshop.trees.ensemble import LABELS, Ensemble, Post, Transform

Expr = Any
Stmt = Any
Buffer = Any

UNROLL = 8


def constants(e: Ensemble, add: Callable[[str, Array], Buffer]) -> None:
    """The classes, for those posts that name one."""
    for index, post in enumerate(e.posts):
        if post.transform in LABELS:
            add(f"labels{index}", np.array(post.labels).astype(post.dtype))


def post(
    post: Post, index: int, e: Ensemble, row: Expr, score: Callable[[Expr], Expr], read: Mapping[str, Buffer]
) -> Stmt:
    """Output ``index + 1`` of the kernel."""
    from tvm import tirx

    out = read[f"out{index + 1}"]
    wide = len(post.width(e.outputs)) == 1

    def put(k: Expr, value: Expr) -> Stmt:
        if str(value.ty.dtype) != post.dtype:
            value = tirx.Cast(post.dtype, value)
        return store(out, [row, k] if wide else [row], value)

    if post.divisor != 1.0:
        whole = score

        def score(k: Expr) -> Expr:
            return whole(k) / number(post.divisor, e.dtype)

    if post.transform in LABELS:
        label = read[f"labels{index}"]
        if post.transform is Transform.ABOVE:
            above = tirx.Cast("int32", score(integer(0)) > number(post.a, e.dtype))
            return put(integer(0), tirx.BufferLoad(label, [above]))
        return _argmax(e, score, lambda k: put(integer(0), tirx.BufferLoad(label, [k])))
    if post.transform in {Transform.PAIR, Transform.COMPLEMENT}:
        one = number(1.0, e.dtype)
        share = score(integer(0))
        if post.transform is Transform.PAIR:
            share = _sigmoid(post, e, share)
        made, told = local("share", 1, e.dtype)
        share_ = tirx.BufferLoad(made, [integer(0)])
        return sequence(
            [told, store(made, [integer(0)], share), put(integer(0), one - share_), put(integer(1), share_)]
        )
    if post.transform is Transform.SOFTMAX:
        return _softmax(e, score, put)
    if post.transform is Transform.DIVIDE:
        return _divide(e, score, put)
    return _each(e.outputs, lambda k: put(k, _elementwise(post, e, score(k))))


def _each(count: int, body: Callable[[Expr], Stmt]) -> Stmt:
    return sequence([body(integer(k)) for k in range(count)]) if count <= UNROLL else serial("k", count, body)


def _sigmoid(post: Post, e: Ensemble, s: Expr) -> Expr:
    from tvm import tirx

    one = number(1.0, e.dtype)
    return one / (one + tirx.exp(s * number(-post.a, e.dtype)))


def _elementwise(post: Post, e: Ensemble, s: Expr) -> Expr:
    from tvm import tirx

    a, b, zero = (number(v, e.dtype) for v in (post.a, post.b, 0.0))
    match post.transform:
        case Transform.SIGMOID:
            return _sigmoid(post, e, s)
        case Transform.EXP:
            return tirx.exp(s)
        case Transform.LOG1P_EXP:
            return tirx.log1p(tirx.exp(s))
        case Transform.SIGNED_SQUARE:
            return tirx.Select(s < zero, zero - s * s, s * s)
        case Transform.HALF_POWER:
            return zero - tirx.pow(number(2.0, e.dtype), zero - s / a) - b
        case Transform.AFFINE:
            return (s if post.a == 1.0 else s * a) + b
    raise AssertionError(post.transform)


def _argmax(e: Ensemble, score: Callable[[Expr], Expr], use: Callable[[Expr], Stmt]) -> Stmt:
    from tvm import tirx

    best, made = local("best", 1, e.dtype)
    which, told = local("which", 1, "int32")
    zero = integer(0)

    def one(k: Expr) -> Stmt:
        k = k + 1
        better = sequence([store(best, [zero], score(k)), store(which, [zero], k)])
        return choose(score(k) > tirx.BufferLoad(best, [zero]), better)

    return sequence(
        [
            made,
            told,
            store(best, [zero], score(zero)),
            store(which, [zero], zero),
            *([serial("k", e.outputs - 1, one)] if e.outputs > 1 else []),
            use(tirx.BufferLoad(which, [zero])),
        ]
    )


def _softmax(e: Ensemble, score: Callable[[Expr], Expr], put: Callable[[Expr, Expr], Stmt]) -> Stmt:
    """Where classes are many, each exponential is taken twice rather than kept: the stack is small."""
    from tvm import tirx

    best, made = local("best", 1, e.dtype)
    total, told = local("total", 1, e.dtype)
    grown, kept = local("grown", min(e.outputs, 64), e.dtype)
    zero = [integer(0)]
    few = e.outputs <= 64

    def power(k: Expr) -> Expr:
        return tirx.exp(score(k) - tirx.BufferLoad(best, zero))

    def add(k: Expr) -> Stmt:
        if not few:
            return store(total, zero, tirx.BufferLoad(total, zero) + power(k))
        return sequence(
            [
                store(grown, [k], power(k)),
                store(total, zero, tirx.BufferLoad(total, zero) + tirx.BufferLoad(grown, [k])),
            ]
        )

    def share(k: Expr) -> Stmt:
        return put(k, (tirx.BufferLoad(grown, [k]) if few else power(k)) / tirx.BufferLoad(total, zero))

    def greater(k: Expr) -> Stmt:
        return store(best, zero, tirx.max(tirx.BufferLoad(best, zero), score(k)))

    return sequence(
        [
            made,
            told,
            *([kept] if few else []),
            store(best, zero, score(integer(0))),
            serial("k", e.outputs, greater),
            store(total, zero, number(0.0, e.dtype)),
            serial("k", e.outputs, add),
            serial("k", e.outputs, share),
        ]
    )


def _divide(e: Ensemble, score: Callable[[Expr], Expr], put: Callable[[Expr, Expr], Stmt]) -> Stmt:
    from tvm import tirx

    total, made = local("total", 1, e.dtype)
    zero = [integer(0)]
    nothing, one = number(0.0, e.dtype), number(1.0, e.dtype)

    def whole() -> Expr:
        found = tirx.BufferLoad(total, zero)
        return tirx.Select(found == nothing, one, found)

    return sequence(
        [
            made,
            store(total, zero, nothing),
            serial("k", e.outputs, lambda k: store(total, zero, tirx.BufferLoad(total, zero) + score(k))),
            serial("k", e.outputs, lambda k: put(k, score(k) / whole())),
        ]
    )
