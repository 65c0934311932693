"""The primitives' rules: what comes out (shape, dtype), what the numbers are (numpy), what they cost (FLOPs).

One module for each family. The semantics are stated once, in ``graph.ops``; the code here follows that text and is
the reference that compiled kernels are tested against. Nothing here is meant to be fast, but nothing loops over
elements in Python either.
"""

from __future__ import annotations

import importlib
import importlib.util

from fleetui.workshop.graph.ops import OpSpec, register

FAMILIES: tuple[str, ...] = (
    "elementwise",
    "moving",
    "reductions",
    "contractions",
    "windows",
    "scatter",
    "recurrent",
    "quantised",
    "extension",
)
ELSEWHERE: tuple[str, ...] = ("fleetui.workshop.trees.primitive",)
"""Modules of other parts that bring primitives in a ``SPECS`` list of their own."""


def load() -> None:
    """Register every primitive. May be called again, and by several threads."""
    names = [f"{__name__}.{family}" for family in FAMILIES]
    names += [name for name in ELSEWHERE if importlib.util.find_spec(name) is not None]
    for name in names:
        specs: list[OpSpec] = importlib.import_module(name).SPECS
        for spec in specs:
            register(spec)
