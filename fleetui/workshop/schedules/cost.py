"""What a loop costs on a target: cycles, from a handful of figures the target's description has.

Coarse on purpose. It has to put candidates of one operator in the right order without measuring anything, on
processors from a microcontroller to a server; absolute times are good to about a factor of two.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetui.workshop.target import Target

SPILL = 2.5
"""How much longer a loop takes whose accumulators do not fit the registers."""

TIGHT = ((2, 1.04), (6, 1.02))
"""The same for a loop that leaves fewer than so many registers free, where there are 32 (measured)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """``multiply``: vector multiply-adds a cycle; ``loads``: vector loads a cycle; ``latency``: of a multiply-add.

    ``near``, ``mid``, ``far`` are bytes a cycle out of the second-level cache, the third, and memory.
    """

    lanes: int
    bytes: int
    registers: int
    multiply: float
    loads: float
    latency: float
    l1: int
    l2: int
    l3: int
    near: float
    mid: float
    far: float
    line: int

    def seconds(self, cycles: float, target: Target) -> float:
        return cycles / (target.mhz * 1e6)


def machine(target: Target, bits: int = 32) -> Machine:
    lanes = target.lanes(bits)
    rate = target.gflops * 1000 / (target.mhz * 2 * max(1, target.vector // 4))
    wide = target.vector >= 32
    size = max(4, target.vector)
    return Machine(
        lanes=lanes,
        bytes=size,
        registers=target.registers,
        multiply=min(2.0, max(0.25, rate)),
        loads=2.0 if wide or rate > 1 else 1.0,
        latency=4.0,
        l1=target.l1,
        l2=target.l2,
        l3=target.l3,
        near=size * (0.75 if wide else 0.5),
        mid=size * 0.2 if target.l3 else target.bandwidth / (target.mhz * 1e6),
        far=target.bandwidth / (target.mhz * 1e6),
        line=target.line,
    )


def block_step(m: Machine, rows: int, vectors: int) -> float:
    """Cycles of one step of a reduction over ``rows`` × ``vectors`` accumulators, operands in the first level."""
    work = rows * vectors / m.multiply
    loads = (rows + vectors) / m.loads
    cycles = max(work, loads, m.latency)
    need = rows * vectors + vectors + 1
    if need > m.registers:
        return cycles * SPILL
    if m.registers > 16:
        return cycles * next((factor for free, factor in TIGHT if need > m.registers - free), 1.0)
    return cycles


def stream(m: Machine, size: float, cycles: float, bytes_moved: float) -> float:
    """``cycles`` of work that read ``bytes_moved`` out of a working set of ``size`` bytes again and again."""
    if size <= 0.75 * m.l1:
        return cycles
    if size <= 0.6 * m.l2:
        return max(cycles, bytes_moved / m.near)
    if m.l3 and size <= 0.6 * m.l3:
        return max(cycles, bytes_moved / m.mid)
    return max(cycles, bytes_moved / m.far)
