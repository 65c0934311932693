"""Chooses how a convolution is computed, without measuring: candidates, and what each of them would cost.

``candidates`` also serves tuning, which measures the most promising ones. Costs are cycles of one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from math import gcd
from typing import Any

from fleetui.workshop.schedules import conv_depthwise, conv_direct, winograd, winograd_transforms
from fleetui.workshop.schedules.conv_depthwise import Depthwise
from fleetui.workshop.schedules.conv_direct import Block, Direct
from fleetui.workshop.schedules.conv_shape import ConvShape, panels
from fleetui.workshop.schedules.cost import Machine, block_step, stream
from fleetui.workshop.schedules.winograd import Winograd

Plan = Direct | Depthwise | Winograd

TASKS = 4
"""Tasks for every thread that keep all of them busy to the end."""
MOST_NUMBER = 1 << 24
"""No parameter of a sound plan is greater."""
AHEAD = 128 << 10
"""Weights of so many bytes are worth fetching ahead."""
GROWTH = 4.5
"""The most that Winograd may multiply the size of the weights by, unless told otherwise."""
TRANSFORM = {2: 60.0, 4: 170.0}
"""Cycles to transform one tile of one vector, there or back."""
COLD = 0.6
"""How much of the time it takes to fetch weights from memory is not hidden behind work (measured)."""
COLD_AHEAD = 0.1
"""The same where the next panel is fetched while one is used."""
SHORTEST = 4000
"""Cycles of multiplication that are worth a task of their own in a depthwise convolution."""
WIDE = 12, 1.08
"""From so many accumulators on a depthwise block takes longer, by this factor (measured)."""
LONE = 1.5
"""How much longer a depthwise block of one vector takes where lines come in pairs (measured)."""
CROWDED = 8
"""Registers that a loop over several written-out channels needs beyond its accumulators (measured)."""
CONFLICT = 1.25
"""How much longer a block takes whose pixels fall on the same lines of the first-level cache."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is known beyond the shape. ``cold``: the network's weights do not stay in the last cache."""

    threads: int = 1
    cold: bool = False
    growth: float = GROWTH


# -------------------------------------------------------------------- candidates


def register_blocks(m: Machine, pixels: int, vectors: int) -> Iterable[tuple[int, int]]:
    """(pixels, vectors) that fit the registers and are worth considering."""
    for v in range(1, min(6, vectors) + 1):
        most = (m.registers - 1 - v) // v
        for r in range(1, min(most, pixels, 28) + 1):
            if r * v >= min(8, pixels * v, most * v) or r == min(most, pixels):
                yield r, v


def direct_candidates(shape: ConvShape, m: Machine, wish: Wish) -> list[Direct]:
    out = []
    vectors = -(-shape.m // m.lanes)
    for r, v in register_blocks(m, shape.ow, vectors):
        unroll = shape.c if shape.c <= 4 else 2
        if unroll > 2 and m.registers >= 32 and r * v + v > m.registers - CROWDED:
            continue
        for strip in _strips(shape, m, wish, r, v):
            plan = _order(shape, m, Direct(r, v, unroll, strip))
            out.append(replace(plan, ahead=_ahead_direct(shape, plan, m, wish)))
    return out


def _ahead_direct(shape: ConvShape, plan: Direct, m: Machine, wish: Wish) -> bool:
    """Worth it where a panel is used a few times only, and is followed by another."""
    passes = plan.strip * (1 if conv_direct.lines(shape) else -(-shape.ow // plan.pixels))
    weights = shape.kh * shape.kw * shape.c * shape.m * shape.groups * 4
    several = shape.groups * len(panels(shape.m, plan.vectors, m.lanes)) > 1
    return wish.cold and several and not plan.panels_outer and weights >= AHEAD and 2 <= passes <= 32


def _strips(shape: ConvShape, m: Machine, wish: Wish, pixels: int, vectors: int) -> list[int]:
    """How many rows (or column blocks) make a task: what fits the cache, in enough tasks for the threads."""
    count = shape.groups * len(panels(shape.m, vectors, m.lanes))
    if conv_direct.lines(shape):
        row = conv_direct.blocks(shape, pixels)
        total, unit = max(1, row.last - row.first), pixels * shape.sw * shape.c * shape.groups * 4
    else:
        total, unit = shape.n * shape.oh, shape.w * shape.sh * shape.c * shape.groups * 4
    fit = max(1, int(0.5 * m.l2) // max(1, unit))
    want = -(-TASKS * wish.threads // count) if wish.threads > 1 else 1
    return [_even(total, min(fit, max(1, total // want)))]


def _even(total: int, most: int) -> int:
    """The strip of at most ``most`` that makes all strips about equal."""
    return -(-total // -(-total // most))


def _order(shape: ConvShape, m: Machine, plan: Direct) -> Direct:
    """Panels outside where the weights are too big to be read for every strip."""
    weights = shape.kh * shape.kw * shape.c * shape.m * shape.groups * 4
    image = shape.n * shape.h * shape.w * shape.c * shape.groups * 4
    count = conv_direct.strips(shape, plan)
    again = len(panels(shape.m, plan.vectors, m.lanes))
    if weights <= 0.5 * m.l2 or count == 1 or count * weights <= again * image:
        return plan
    return Direct(plan.pixels, plan.vectors, plan.unroll, plan.strip, panels_outer=True)


def depthwise_candidates(shape: ConvShape, m: Machine, wish: Wish) -> list[Depthwise]:
    out = []
    vectors = max(1, conv_depthwise.channels(shape) // m.lanes)
    rows = shape.n * shape.oh
    for v in (1, 2, 4):
        if v > vectors:
            continue
        # half of the registers: the rest holds inputs that several taps share
        most = max(1, m.registers // 2 // v)
        for r in {min(r, shape.ow) for r in (2, 4, 5, 6, 7, 8) if r <= most}:
            unit = (shape.w * v * m.bytes) * shape.sh
            fit = max(1, int(2 * m.l1) // max(1, unit))
            # a task should last a while, or rows that two outputs share are read twice for nothing
            cycles = shape.flops / 2 / m.lanes / m.multiply
            wanted = max(1, min(TASKS * wish.threads, int(cycles / SHORTEST)))
            strip = _even(rows, min(fit, max(1, rows // wanted)))
            tasks = -(-rows // strip)
            split = min(max(1, vectors // v), -(-wanted // tasks)) if wish.threads > 1 else 1
            out.append(Depthwise(r, v, strip, split))
    return out


def winograd_candidates(shape: ConvShape, m: Machine, wish: Wish) -> list[Winograd]:
    out: list[Winograd] = []
    if not winograd.suits(shape):
        return out
    vectors = -(-shape.m // m.lanes)
    for tile in winograd_transforms.POINTS:
        if (tile + 2) ** 2 / 9 > wish.growth or min(shape.oh, shape.ow) < tile:
            continue
        down, across = winograd.tiles(shape, tile)
        total = shape.n * down * across
        for r, v in register_blocks(m, total, vectors):
            if r * v < min(12, total * v, vectors * r) and m.registers >= 16:
                continue
            side = -(-shape.c // m.lanes) * m.lanes * (tile + 2) ** 2 * 4
            weights = winograd.packed_size(shape, Winograd(tile, r, v, r), m.lanes) * 4
            fits = 0.6 * m.l2 if weights <= 0.5 * m.l2 else max(1.5 * m.l2, 0.04 * m.l3)
            most = max(r, int(fits / side) // r * r)
            strips = -(-total // most)
            if wish.threads > 1:
                strips = -(-strips // wish.threads) * wish.threads if total >= 2 * r * wish.threads else strips
            strip = -(-total // (strips * r)) * r
            strips = -(-total // strip)
            count = len(panels(shape.m, v, m.lanes))
            parts = 1 if strips >= wish.threads else min(count, -(-wish.threads // strips) * 2)
            ahead = wish.cold and AHEAD <= weights <= 16 * m.l2 and strip >= 2 * r and count > 1
            out.append(Winograd(tile, r, v, strip, parts, ahead=ahead))
    return out


@cache
def candidates(shape: ConvShape, m: Machine, wish: Wish) -> tuple[Plan, ...]:
    """All plans worth a thought, the cheapest first."""
    found: list[Plan] = []
    if shape.depthwise and shape.m < m.lanes:
        found += depthwise_candidates(shape, m, wish)
    if not found or shape.m > 1:
        found += direct_candidates(shape, m, wish)
        found += winograd_candidates(shape, m, wish)
    return tuple(sorted(dict.fromkeys(found), key=lambda plan: (cost(shape, plan, m, wish), repr(plan))))


def choose(shape: ConvShape, m: Machine, wish: Wish) -> Plan:
    return candidates(shape, m, wish)[0]


# -------------------------------------------------------------------- costs


def cost(shape: ConvShape, plan: Plan, m: Machine, wish: Wish) -> float:
    if isinstance(plan, Direct):
        return direct_cost(shape, plan, m, wish)
    if isinstance(plan, Winograd):
        return winograd_cost(shape, plan, m, wish)
    return depthwise_cost(shape, plan, m)


def kernel_rows(shape: ConvShape) -> int:
    """Kernel rows that read inside the image, over all output rows."""
    total = 0
    for y in range(shape.oh):
        top = y * shape.sh - shape.top
        total += sum(0 <= top + k * shape.dh < shape.h for k in range(shape.kh))
    return total * shape.n


def direct_cost(shape: ConvShape, plan: Direct, m: Machine, wish: Wish) -> float:
    taps = [shape.columns(kx) for kx in range(shape.kw)]
    rows = kernel_rows(shape)
    total = 0.0
    cut = panels(shape.m, plan.vectors, m.lanes)
    found = conv_direct.blocks(shape, plan.pixels)
    kinds = [(block, 1) for block in (*found.before, *found.after)]
    if found.last > found.first:
        inner = Block(found.first * plan.pixels, plan.pixels, interior=True)
        kinds.append((inner, found.last - found.first))
    for v in {cut[0][1], cut[-1][1]}:
        panel = shape.kh * shape.kw * shape.c * v * m.bytes
        row, ends = 0.0, 0.0
        for block, times in kinds:
            for first, last in taps:
                used = min(block.start + block.count, last) - max(block.start, first)
                if used > 0:
                    step = stream(m, panel, block_step(m, used, v), v * m.bytes)
                    step *= CONFLICT if _conflicts(shape, used, m) else 1.0
                    row += times * (shape.c * step + (4 if shape.kw * shape.kh > 1 else 0))
            ends += times * (12 + block.count * v * 2.0)
        many = shape.groups * sum(width == v for _, width, _ in cut)
        total += many * (row * rows + ends * shape.n * shape.oh)
    weights = shape.kh * shape.kw * shape.c * shape.m * shape.groups * 4
    image = shape.n * shape.h * shape.w * shape.c * shape.groups * 4
    times = 1 if plan.panels_outer or weights <= 0.5 * m.l2 else conv_direct.strips(shape, plan)
    if weights > 0.5 * m.l2:
        total += 0.3 * (times - 1) * weights / m.mid
    if image > 0.5 * m.l2 and plan.panels_outer:
        total += 0.3 * len(cut) * image / m.mid
    if wish.cold:
        total = _fetched(total, weights, m, ahead=plan.ahead)
    return total + 0.5 * (image + shape.n * shape.oh * shape.ow * shape.m * shape.groups * 4) / m.mid


def _fetched(work: float, weights: float, m: Machine, *, ahead: bool) -> float:
    """With the time it takes to bring the weights from memory, as far as it shows."""
    fetch = weights / m.far
    return max(work, fetch) + COLD_AHEAD * fetch if ahead else work + COLD * fetch


def _conflicts(shape: ConvShape, count: int, m: Machine) -> bool:
    """Whether the pixels of a block lie so far apart that they push each other out of the first-level cache."""
    step = shape.sw * shape.c * shape.groups * 4
    way = 4096 if m.loads > 1 else max(4096, m.l1 // 4)
    places = max(1, way // gcd(step, way))
    return count > places and -(-count // places) > 0.6 * m.l1 / way


def winograd_cost(shape: ConvShape, plan: Winograd, m: Machine, wish: Wish) -> float:
    down, across = winograd.tiles(shape, plan.tile)
    total = shape.n * down * across
    strips = -(-total // plan.strip)
    places = (plan.tile + 2) ** 2
    cut = panels(shape.m, plan.vectors, m.lanes)
    vectors = sum(v for _, v, _ in cut)
    scale = 64.0 / m.bytes if m.bytes < 64 and m.loads < 2 else 1.0
    work = 0.0
    tiles = [plan.strip] * (strips - 1) + [total - plan.strip * (strips - 1)]
    blocks = sum(-(-t // plan.block) for t in tiles)
    for _, v, _ in cut:
        v_size = plan.strip * shape.c * 4
        step = max(block_step(m, plan.block, v), stream(m, shape.c * v * m.bytes + v_size, 0, v * m.bytes))
        work += places * blocks * (shape.c * step + 12 + plan.block * v * 1.5)
    work += total * plan.parts * -(-shape.c // m.lanes) * TRANSFORM[plan.tile] * min(scale, 2.0)
    work += total * vectors * TRANSFORM[plan.tile] * min(scale, 2.0)
    weights = places * shape.c * vectors * m.bytes
    scratch = places * plan.strip * shape.c * 4
    if weights > 0.5 * m.l2:
        work = max(work, strips * weights / m.mid) + 0.2 * strips * weights / m.mid
    if scratch > 0.7 * m.l2:
        work += 0.5 * strips * scratch * len(cut) / m.mid
    if wish.cold:
        work = _fetched(work, weights, m, ahead=plan.ahead)
    image = shape.n * 4 * (shape.h * shape.w * shape.c + shape.oh * shape.ow * shape.m)
    growth = places / 9
    return (work + 0.5 * image / m.mid) * (1 + 0.03 * (growth - 1))


def depthwise_cost(shape: ConvShape, plan: Depthwise, m: Machine) -> float:
    taps = shape.kh * shape.kw
    vectors = conv_depthwise.channels(shape) / m.lanes
    total = 0.0
    for start in range(0, shape.ow, plan.pixels):
        count = min(plan.pixels, shape.ow - start)
        window = (count - 1) * shape.sw + shape.kw
        loads = shape.kh * (min(window, count * shape.kw) + shape.kw / plan.vectors)
        total += max(count * taps / m.multiply, loads / m.loads, taps * m.latency / plan.vectors) + 8 + 2 * count
    if plan.pixels * plan.vectors > WIDE[0]:
        total *= WIDE[1]
    if conv_depthwise.channels(shape) * 4 >= 512 and plan.vectors * m.bytes < 2 * m.line:
        total *= LONE  # pixels far apart: of neighbouring lines that are fetched together only one is used
    return total * vectors * shape.n * shape.oh


# -------------------------------------------------------------------- as data

KINDS: dict[str, type[Plan]] = {"direct": Direct, "depthwise": Depthwise, "winograd": Winograd}


def record(plan: Plan) -> dict[str, Any]:
    return {"kind": type(plan).__name__.lower(), **asdict(plan)}


def revive(data: Mapping[str, Any], shape: ConvShape, wish: Wish) -> Plan | None:
    """A recorded plan, if it still makes sense here; a database may be from another version or another hand."""
    given = dict(data)
    kind = KINDS.get(str(given.pop("kind", "")))
    if kind is None or set(given) - {f.name for f in fields(kind)}:
        return None
    if any(not isinstance(v, int) or not 0 <= v <= MOST_NUMBER for v in given.values()):
        return None
    try:
        plan = kind(**given)
    except TypeError:
        return None
    for f in fields(plan):
        if f.type != "bool" and getattr(plan, f.name) < 1:
            return None
    block = plan.block if isinstance(plan, Winograd) else plan.pixels
    if block * plan.vectors > 64:
        return None
    if isinstance(plan, Winograd):
        known = (
            winograd.suits(shape)
            and plan.tile in winograd_transforms.POINTS
            and (plan.tile + 2) ** 2 / 9 <= wish.growth
        )
        return plan if known and plan.strip % plan.block == 0 else None
    if isinstance(plan, Depthwise):
        return plan if shape.depthwise else None
    return plan
