"""The model in TensorFlow itself, as a compiled function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fleetui.workshop.errors import WorkshopError
from fleetui.workshop.frontends.summary import settle_all
from fleetui.workshop.frontends.tensorflow.convert import load, output_names, tensorflow
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.options import InputSpec


class TensorFlowPeer:
    name = "tensorflow"

    def __init__(self, kind: str, path: Path, inputs: Sequence[InputSpec], threads: int) -> None:
        self._tf = tensorflow()
        self.version = str(self._tf.__version__)
        try:
            self._tf.config.threading.set_intra_op_parallelism_threads(threads)
            self._tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError as error:
            # TensorFlow's thread pools are made once in a process.
            have = self._tf.config.threading.get_intra_op_parallelism_threads()
            if have != threads:
                raise WorkshopError(
                    f"TensorFlow has {have or 'all'} threads in this process already, not {threads}",
                    "Compare in a process of its own",
                ) from error
        self._loaded = load(kind, path)
        self._names = [p.name for p in self._loaded.inputs]
        mine = [p.name for p in self._loaded.outputs]
        self._outputs = dict(zip(mine, output_names(self._loaded), strict=True))
        shapes = settle_all(self._loaded.inputs, inputs)
        given = {
            p.name: self._tf.TensorSpec(shape, dtype, p.name)
            for p, (shape, dtype) in zip(self._loaded.inputs, shapes, strict=True)
        }
        traced = self._tf.function(lambda **feeds: self._loaded.call(feeds), autograph=False)
        self._call = traced.get_concrete_function(**given)
        self.run({n: np.zeros(shape, dtype) for n, (shape, dtype) in zip(self._names, shapes, strict=True)})

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        made = self._call(**{name: self._tf.constant(feeds[name]) for name in self._names})
        return {self._outputs[name]: np.asarray(value) for name, value in made.items()}
