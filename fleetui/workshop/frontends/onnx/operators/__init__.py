"""Importers of the operators, one module for each family; ``load`` fills the tables in ``call``."""

from __future__ import annotations


def load() -> None:
    from fleetui.workshop.frontends.onnx.operators import (
        attention,
        contraction,
        contrib,
        control,
        elementwise,
        indexing,
        losses,
        normalise,
        quantise,
        recurrent,
        reductions,
        refused,
        resize,
        sampling,
        sequences,
        shapes,
        signal,
        windows,
    )

    del attention, contraction, contrib, control, elementwise, indexing, losses, normalise, quantise, recurrent
    del reductions, refused, resize, sampling, sequences, shapes, signal, windows
