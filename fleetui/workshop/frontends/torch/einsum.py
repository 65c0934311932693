"""``torch.einsum``: each pair of terms in one matrix product between transposes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.frontends.torch.program import Args, Importer, on
from fleetui.workshop.graph.ir import Value


@on("einsum")
def _einsum(c: Importer, a: Args) -> Value:
    operands: list[Value] = a.need("tensors")
    terms, result = _einsum_terms(str(a.need("equation")), operands)
    left, name = operands[0], terms[0]
    left, name = _diagonal_free(c, left, name)
    for at in range(1, len(operands)):
        right, other = _diagonal_free(c, operands[at], terms[at])
        later = set(result) | {letter for term in terms[at + 1 :] for letter in term}
        left, name = _contract(c, left, name, right, other, later)
    gone = [i for i, letter in enumerate(name) if letter not in result]
    if gone:
        left = c.e.reduce("sum", left, gone)
        name = "".join(letter for letter in name if letter in result)
    return c.e.transpose(left, [name.index(letter) for letter in result])


def _einsum_terms(equation: str, operands: Sequence[Value]) -> tuple[list[str], str]:
    """Letters for every axis, ``...`` written out in letters of its own."""
    text = equation.replace(" ", "")
    left, arrow, result = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ShapeError(f"{equation!r} has {len(terms)} terms for {len(operands)} tensors")
    spare = "0123456789"
    widest = 0
    for at, (term, value) in enumerate(zip(terms, operands, strict=True)):
        if "..." in term:
            count = value.rank - len(term.replace("...", ""))
            widest = max(widest, count)
            terms[at] = term.replace("...", spare[len(spare) - count :] if count else "")
    if not arrow:
        letters = sorted({c for t in terms for c in t if c not in spare and "".join(terms).count(c) == 1})
        result = spare[len(spare) - widest :] * bool(widest) + "".join(letters)
    else:
        result = result.replace("...", spare[len(spare) - widest :] if widest else "")
    for term, value in zip(terms, operands, strict=True):
        if len(term) != value.rank:
            raise ShapeError(f"{equation!r}: {term} for a tensor of {value.rank} dimensions")
    return terms, result


def _diagonal_free(c: Importer, x: Value, name: str) -> tuple[Value, str]:
    if len(set(name)) != len(name):
        raise UnsupportedError(
            f"at {c.b.source}: a letter twice in one term of einsum is not supported", "Rewrite it"
        )
    return x, name


def _contract(c: Importer, x: Value, name: str, y: Value, other: str, later: set[str]) -> tuple[Value, str]:
    """Two terms in one matrix product: shared letters that live on are the batch, those that do not are summed."""
    for value, mine, yours in ((x, name, other), (y, other, name)):
        lone = [i for i, letter in enumerate(mine) if letter not in yours and letter not in later]
        if lone:
            reduced = c.e.reduce("sum", value, lone)
            kept = "".join(letter for letter in mine if letter in yours or letter in later)
            if value is x:
                x, name = reduced, kept
            else:
                y, other = reduced, kept
    size = dict(zip(name, x.shape, strict=True))
    size |= {k: v for k, v in zip(other, y.shape, strict=True) if size.get(k, 1) == 1}
    batch = [k for k in name if k in other and k in later]
    inner = [k for k in name if k in other and k not in later]
    rows, columns = [k for k in name if k not in other], [k for k in other if k not in name]

    def matrix(value: Value, mine: str, groups: Sequence[Sequence[str]]) -> Value:
        order = [mine.index(k) for group in groups for k in group]
        value = c.e.transpose(value, order)
        value = c.e.expand(value, [size[k] for group in groups for k in group])
        return c.e.reshape(
            value, [*(size[k] for k in groups[0]), *(math.prod(size[k] for k in g) for g in groups[1:])]
        )

    out = c.e.matmul(matrix(x, name, [batch, rows, inner]), matrix(y, other, [batch, inner, columns]))
    made = [*batch, *rows, *columns]
    return c.e.reshape(out, [size[k] for k in made]), "".join(made)
