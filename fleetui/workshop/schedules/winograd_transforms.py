"""Cook-Toom's transforms for F(m, 3): exact matrices, and the sums they stand for as expressions.

The matrices are made of fractions from a handful of points and infinity; whoever applies one gives the values and
gets expressions in which what neighbouring rows share is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache

from fleetui.workshop.schedules import emit
from fleetui.workshop.schedules.emit import Expr

POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
}
"""For m = 4 the usual ±1, ±2 lose seven times as much to rounding; these are as exact in binary."""


def _product(points: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of Π (x - p), lowest power first."""
    out = [Fraction(1)]
    for point in points:
        shifted = [Fraction(0), *out]
        out = [s - point * c for s, c in zip(shifted, [*out, Fraction(0)], strict=True)]
    return out


@cache
def input_matrix(tile: int) -> tuple[tuple[Fraction, ...], ...]:
    points = POINTS[tile]
    rows = [[*_product([q for q in points if q != p]), Fraction(0)] for p in points]
    rows.append(_product(points))
    return tuple(tuple(row) for row in rows)


@cache
def weight_matrix(tile: int) -> tuple[tuple[Fraction, ...], ...]:
    points = POINTS[tile]
    rows = []
    for p in points:
        scale = Fraction(1)
        for q in points:
            if q != p:
                scale *= p - q
        rows.append(tuple(p**k / scale for k in range(3)))
    rows.append((Fraction(0), Fraction(0), Fraction(1)))
    return tuple(rows)


@cache
def output_matrix(tile: int) -> tuple[tuple[Fraction, ...], ...]:
    points = POINTS[tile]
    return tuple((*(p**r for p in points), Fraction(int(r == tile - 1))) for r in range(tile))


def _weighted(terms: Sequence[tuple[Fraction, Expr]]) -> Expr | None:
    """Σ factor · value; factors of one cost nothing."""
    total: Expr | None = None
    for factor, value in sorted(terms, key=lambda term: abs(term[0]) != 1):
        if factor == 0:
            continue
        if total is None:
            total = value if factor == 1 else value * emit.number(float(factor), "float32")
        elif factor == 1:
            total = total + value
        elif factor == -1:
            total = total - value
        else:
            total = total + value * emit.number(float(factor), "float32")
    return total


def transform(matrix: Sequence[Sequence[Fraction]], values: Sequence[Expr]) -> list[Expr]:
    """Matrix times vector. Neighbouring rows that differ in the sign of some terms share both halves."""
    out: list[Expr] = []
    at = 0
    while at < len(matrix):
        row = matrix[at]
        following = matrix[at + 1] if at + 1 < len(matrix) else None
        if following is not None and all(abs(a) == abs(b) for a, b in zip(row, following, strict=True)):
            same = _weighted([(a, v) for a, b, v in zip(row, following, values, strict=True) if a == b])
            other = _weighted([(a, v) for a, b, v in zip(row, following, values, strict=True) if a != b])
            if same is not None and other is not None:
                out += [same + other, same - other]
                at += 2
                continue
        total = _weighted(list(zip(row, values, strict=True)))
        assert total is not None
        out.append(total)
        at += 1
    return out


def transform_output(tile: int, values: Sequence[Expr]) -> list[Expr]:
    """Aᵀ·m, with the sum and the difference of the two values at ±p computed once."""
    matrix = output_matrix(tile)
    sums = [values[i] + values[i + 1] for i in range(1, tile, 2)]
    differences = [values[i] - values[i + 1] for i in range(1, tile, 2)]
    out = []
    for r in range(tile):
        half = sums if r % 2 == 0 else differences
        terms = [(matrix[r][1 + 2 * i], value) for i, value in enumerate(half)]
        if r == 0:
            terms.append((Fraction(1), values[0]))
        if r == tile - 1:
            terms.append((Fraction(1), values[tile + 1]))
        total = _weighted(terms)
        assert total is not None
        out.append(total)
    return out
