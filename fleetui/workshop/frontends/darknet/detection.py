"""Darknet's detection layers: boxes, decoded."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.darknet.importer import Importer, on
from fleetui.workshop.frontends.darknet.layers import picture, positive
from fleetui.workshop.frontends.darknet.reading import Section
from fleetui.workshop.graph.ir import Array, Value


def _boxes(c: Importer, anchors: list[tuple[float, float]], classes: int) -> tuple[Value, int, int]:
    """[N, H·W·anchors, 5 + classes] → split later; the grid's height and width."""
    x = picture(c)
    n, height, width, depth = x.shape
    if depth != len(anchors) * (5 + classes):
        raise ModelError(
            f"{c.b.source} needs {len(anchors) * (5 + classes)} channels and gets {depth}",
            "Mend filters or classes",
        )
    return c.e.reshape(x, [n, height, width, len(anchors), 5 + classes]), height, width


def _decoded(
    c: Importer, x: Value, scores: Value, anchors: Array, extent: tuple[float, float], scale: float
) -> Value:
    """``anchors`` in units of ``extent`` (the picture's or the grid's width and height)."""
    n, height, width, count, _ = x.shape
    centre, size, sure = c.e.slice(x, 4, 0, 2), c.e.slice(x, 4, 2, 4), c.e.slice(x, 4, 4, 5)
    centre = c.b.op("sigmoid", centre)
    if scale != 1.0:
        centre = c.e.by("sub", c.e.by("mul", centre, scale), (scale - 1) / 2)
    rows, columns = np.mgrid[:height, :width]
    grid = np.stack([columns, rows], -1).astype(np.float32).reshape(1, height, width, 1, 2)
    centre = c.b.op("add", centre, c.b.constant(grid, "grid"))
    centre = c.b.op("mul", centre, c.b.constant(np.array([1 / width, 1 / height], np.float32), "step"))
    factor = (anchors / np.array(extent)).astype(np.float32).reshape(1, 1, 1, count, 2)
    size = c.b.op("mul", c.b.op("exp", size), c.b.constant(factor, "anchors"))
    out = c.e.concat([centre, size, c.b.op("sigmoid", sure), scores], 4)
    return c.e.reshape(out, [n, height * width * count, out.shape[4]])


@on("yolo")
def _yolo(c: Importer, s: Section, _at: int) -> Value:
    net = c.sections[0]
    flat = s.list("anchors")
    every = [(flat[i], flat[i + 1]) for i in range(0, len(flat) - 1, 2)]
    mask = [int(m) for m in s.list("mask")] or list(range(len(every)))
    if any(not 0 <= m < len(every) for m in mask):
        raise ModelError(f"{c.b.source}: the mask names an anchor that is not there", "Mend the .cfg")
    if s.whole("new_coords", 0):
        raise UnsupportedError(f"{c.b.source}: new_coords is not supported", "Use the usual coordinates")
    anchors = [every[m] for m in mask]
    x, _, _ = _boxes(c, anchors, s.whole("classes", 20))
    scores = c.b.op("sigmoid", c.e.slice(x, 4, 5, x.shape[4]))
    extent = (float(net.whole("width", 1)), float(net.whole("height", 1)))
    made = _decoded(c, x, scores, np.array(anchors), extent, s.real("scale_x_y", 1.0))
    c.heads.append((made, f"boxes{len(c.heads)}"))
    return c.x


@on("region")
def _region(c: Importer, s: Section, _at: int) -> Value:
    if s.text("tree") or s.text("map"):
        raise UnsupportedError(f"{c.b.source}: trees of classes are not supported", "Use plain classes")
    flat, count, classes = s.list("anchors"), positive(c, s, "num", 1), s.whole("classes", 20)
    if len(flat) < 2 * count:
        raise ModelError(f"{c.b.source} has {len(flat) // 2} anchors, not {count}", "Mend the .cfg")
    anchors = [(flat[2 * i], flat[2 * i + 1]) for i in range(count)]
    x, height, width = _boxes(c, anchors, classes)
    raw = c.e.slice(x, 4, 5, x.shape[4])
    scores = c.b.op("softmax", raw, axis=4) if s.whole("softmax", 0) else c.b.op("sigmoid", raw)
    made = _decoded(c, x, scores, np.array(anchors), (float(width), float(height)), 1.0)
    c.heads.append((made, f"boxes{len(c.heads)}"))
    return c.x
