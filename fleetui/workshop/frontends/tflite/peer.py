"""The model in LiteRT (TFLite's interpreter with XNNPACK)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np

from fleetui.workshop.errors import MissingExtra
from fleetui.workshop.frontends.summary import settle_all
from fleetui.workshop.frontends.tflite.importer import Importer
from fleetui.workshop.graph.ir import Array


class TFLitePeer:
    name = "litert"

    def __init__(self, content: bytes, importer: Importer, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]  # has none
        except ImportError as error:
            raise MissingExtra("Running a TFLite model beside ours", "tflite") from error
        self.version = version("ai-edge-litert")
        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        ports = importer.input_ports()
        self._inputs = dict(zip((p.name for p in ports), importer.model.inputs, strict=True))
        self._outputs = dict(zip((p.name for p in importer.output_ports()), importer.model.outputs, strict=True))
        shapes = settle_all(ports, importer.inputs)
        feeds = {}
        for port, (shape, dtype) in zip(ports, shapes, strict=True):
            if tuple(importer.model.tensors[self._inputs[port.name]].shape) != shape:
                self._interpreter.resize_tensor_input(self._inputs[port.name], shape)
            feeds[port.name] = np.zeros(shape, dtype)
        self._interpreter.allocate_tensors()
        self.run(feeds)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, np.ascontiguousarray(feeds[name]))
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
