"""Copies of matrices with rows and columns exchanged, square by square in registers."""

from __future__ import annotations

from collections.abc import Callable

from fleetui.workshop.schedules.emit import Expr, Stmt, integer, sequence, serial

Read = Callable[[Expr, Expr, int], Expr]
"""``read(row, column, width)``: neighbours along a row of the source."""
Write = Callable[[Expr, Expr, Expr, int], Stmt]
"""``write(row, column, value, width)``: neighbours along a row of the copy, whose rows are the source's columns."""


def exchanged(vectors: list[Expr]) -> tuple[list[Stmt], list[Expr]]:
    """A square of as many vectors as each has lanes, turned: each round exchanges halves of pairs of vectors."""
    from tvm import tirx

    side = len(vectors)
    made: list[Stmt] = []

    def name(value: Expr) -> Expr:
        var = tirx.Var("q", value.ty)
        made.append(tirx.Bind(var, value))
        return var

    rows = [name(vector) for vector in vectors]
    step = side // 2
    while step:
        low = [integer(j if not j & step else side + (j ^ step)) for j in range(side)]
        high = [integer(j | step if not j & step else side + j) for j in range(side)]
        for i in (i for i in range(side) if not i & step):
            pair = [rows[i], rows[i | step]]
            rows[i], rows[i | step] = name(tirx.Shuffle(pair, low)), name(tirx.Shuffle(pair, high))
        step //= 2
    return made, rows


def turned_copy(rows: int, columns: int, lanes: int, read: Read, write: Write) -> Stmt:
    """All of a ``rows`` × ``columns`` source; what is left over beside the squares goes element by element."""
    side = lanes
    while side > min(rows, columns):
        side //= 2
    side = max(1, side)
    whole_rows, whole_columns = rows // side, columns // side

    def square(i: Expr, j: Expr) -> Stmt:
        top, start = i * integer(side), j * integer(side)
        made, vectors = exchanged([read(top + integer(n), start, side) for n in range(side)])
        return sequence([*made, *(write(start + integer(n), top, v, side) for n, v in enumerate(vectors))])

    def single(i: Expr, j: Expr) -> Stmt:
        return write(j, i, read(i, j, 1), 1)

    if side == 1:
        return serial("i", rows, lambda i: serial("j", columns, lambda j: single(i, j)))
    made = [serial("i", whole_rows, lambda i: serial("j", whole_columns, lambda j: square(i, j)))]
    right, below = columns - whole_columns * side, rows - whole_rows * side
    if right:
        first = integer(whole_columns * side)
        made.append(serial("i", whole_rows * side, lambda i: serial("j", right, lambda j: single(i, first + j))))
    if below:
        base = integer(whole_rows * side)
        made.append(serial("i", below, lambda i: serial("j", columns, lambda j: single(base + i, j))))
    return sequence(made)
