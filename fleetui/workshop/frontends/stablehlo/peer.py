"""The module in JAX, compiled by XLA."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.frontends.stablehlo.reader import MAGIC, ports, read
from fleetui.workshop.frontends.summary import settle_all
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.options import InputSpec


class JaxPeer:
    name = "jax"

    def __init__(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> None:
        if threads == 1:  # read when XLA starts, once in a process
            os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
        module = read(path)
        import jax
        from jax import export

        self.version = str(jax.__version__)
        given, made = ports(module.main)
        self._inputs = [p.name for p in given]
        self._outputs = [p.name for p in made]
        shapes = settle_all(given, inputs)
        arguments: list[Any] = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        bound: dict[str, Any] = {}
        if any(isinstance(d, str) for p in given for d in p.shape):
            # Open dimensions stay open here, too: JAX settles them when it is called.
            wished = [",".join(map(str, p.shape)) for p in given]
            arguments = list(export.symbolic_args_specs(arguments, wished))
            for port, argument in zip(given, arguments, strict=True):
                bound.update({s: d for s, d in zip(port.shape, argument.shape, strict=True) if isinstance(s, str)})
        results = [tuple(bound[d] if isinstance(d, str) else d for d in p.shape) for p in made]

        def likeness(*_args: Any) -> tuple[Any, ...]:
            """The same signature; its body is replaced by the module's."""
            return tuple(jax.numpy.zeros(shape, p.dtype) for shape, p in zip(results, made, strict=True))

        exported = export.export(jax.jit(likeness, keep_unused=True))(*arguments)
        exported = replace(exported, mlir_module_serialized=_portable(module))
        self._call = jax.jit(exported.call)
        self.run({p.name: np.zeros(shape, dtype) for p, (shape, dtype) in zip(given, shapes, strict=True)})

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        made = self._call(*(feeds[name] for name in self._inputs))
        return {name: np.asarray(value) for name, value in zip(self._outputs, made, strict=True)}


def _portable(module: Any) -> bytes:
    from jaxlib.mlir.dialects import stablehlo

    if module.content.startswith(MAGIC):
        return bytes(module.content)
    with module.context:
        made = stablehlo.serialize_portable_artifact(module.module, stablehlo.get_current_version())
    return bytes(made)
