"""The model in PyTorch itself, eagerly, as its author would run it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.frontends.summary import settle_all
from fleetui.workshop.frontends.torch import functional
from fleetui.workshop.frontends.torch.extra import torch
from fleetui.workshop.frontends.torch.program import Importer
from fleetui.workshop.graph.ir import Array


class TorchPeer:
    name = "torch"

    def __init__(self, path: Path, importer: Importer, threads: int) -> None:
        self._torch = torch()
        self._torch.set_num_threads(threads)
        self.version = str(self._torch.__version__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own deprecations, at its own lines
            self._module = functional.load(path).module()
        ports = importer.input_ports()
        self._inputs = [port.name for port in ports]
        self._outputs: list[str] = []
        for port in importer.output_ports():
            name = port.name
            while name in self._outputs:
                name += "_again"
            self._outputs.append(name)
        shapes = settle_all(ports, importer.inputs)
        self.run({p.name: np.zeros(shape, dtype) for p, (shape, dtype) in zip(ports, shapes, strict=True)})

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        with self._torch.inference_mode():
            made = self._module(*(self._torch.from_numpy(np.ascontiguousarray(feeds[n])) for n in self._inputs))
        return dict(zip(self._outputs, (t.numpy() for t in _flat(made)), strict=True))


def _flat(made: Any) -> list[Any]:
    if isinstance(made, Mapping):
        made = list(made.values())
    if isinstance(made, list | tuple):
        return [tensor for part in made for tensor in _flat(part)]
    return [] if made is None else [made]
