"""Where every buffer of a program lies in the one workspace: liveness in, offsets out. Knows nothing of tensors.

Buffers that are never live at the same step may share bytes. Finding the smallest workspace is as hard as packing
boxes; a few orders of best-fit placement come within a few per cent of the lower bound on real networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALIGN = 64


@dataclass(slots=True, eq=False)
class Block:
    """``first`` and ``last`` are the steps (inclusive) between which its bytes must stay untouched."""

    size: int
    first: int
    last: int
    name: str = ""
    offset: int = -1

    def meets(self, other: Block) -> bool:
        return self.first <= other.last and other.first <= self.last


def aligned(size: int, step: int = ALIGN) -> int:
    return -(-size // step) * step


def lower_bound(blocks: Sequence[Block]) -> int:
    """The most bytes that are live at one step: no plan can need less."""
    change: dict[int, int] = {}
    for block in blocks:
        size = aligned(block.size)
        change[block.first] = change.get(block.first, 0) + size
        change[block.last + 1] = change.get(block.last + 1, 0) - size
    most = now = 0
    for step in sorted(change):
        now += change[step]
        most = max(most, now)
    return most


ORDERS: tuple[Callable[[Block], tuple[int, ...]], ...] = (
    lambda b: (-b.size, b.first),
    lambda b: (-(b.last - b.first), -b.size, b.first),
    lambda b: (-b.size * (1 + b.last - b.first), b.first),
    lambda b: (b.first, -b.size),
    lambda b: (-b.last, -b.size),
)


def plan(blocks: Sequence[Block]) -> int:
    """Give every block its offset. Returns the size of the workspace."""
    bound = lower_bound(blocks)
    best: list[int] = []
    least = -1
    for order in ORDERS:
        total = _fit(sorted(blocks, key=order))
        if least < 0 or total < least:
            least, best = total, [b.offset for b in blocks]
        if total == bound:
            break
    for block, offset in zip(blocks, best, strict=True):
        block.offset = offset
    return max(least, 0)


def _fit(blocks: Sequence[Block]) -> int:
    """Each into the tightest gap between those already placed that are live with it, else on top of them."""
    placed: list[Block] = []
    total = 0
    for block in blocks:
        size = aligned(block.size)
        end, tightest, offset = 0, -1, -1
        for other in placed:
            if not other.meets(block):
                continue
            gap = other.offset - end
            if gap >= size and (tightest < 0 or gap < tightest):
                tightest, offset = gap, end
            end = max(end, other.offset + aligned(other.size))
        block.offset = end if offset < 0 else offset
        total = max(total, block.offset + size)
        at = next((i for i, p in enumerate(placed) if p.offset > block.offset), len(placed))
        placed.insert(at, block)
    return total
