"""The model in TensorFlow itself, as a compiled function, in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleetui.workshop.errors import MissingExtra, ModelError, ShapeError
from fleetui.workshop.frontends.tensorflow.pipe import receive, send
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.options import InputSpec


class TensorFlowPeer:
    """``seconds``: how long TensorFlow took for the last run, without the way to its process and back.

    ``close`` ends the process; so does the end of this object, and that of this process.
    """

    name = "tensorflow"

    def __init__(self, kind: str, path: Path, inputs: Sequence[InputSpec], threads: int) -> None:
        if importlib.util.find_spec("tensorflow") is None:
            raise MissingExtra("Running the model beside ours", "tensorflow")
        request = json.dumps(
            {
                "kind": kind,
                "path": str(path.absolute()),
                "inputs": [[spec.name, list(spec.shape), spec.dtype] for spec in inputs],
                "threads": threads,
            }
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fleetui.workshop.frontends.tensorflow.serve", request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        )
        self._end = weakref.finalize(self, _stop, self._process)
        self.seconds = 0.0
        try:
            assert self._process.stdout is not None
            _, said = receive(self._process.stdout)
        except EOFError as error:
            self.close()
            raise ModelError(f"TensorFlow ended while it loaded {path.name}", "Export the model again") from error
        if "refused" in said:
            self.close()
            raise ModelError(*said["refused"])
        self.version = str(said["version"])

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, feeds)
            made, said = receive(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise ModelError("TensorFlow ended while it ran the model", "Export the model again") from error
        if "refused" in said:
            raise ShapeError(*said["refused"])
        self.seconds = float(said["seconds"])
        return made

    def close(self) -> None:
        self._end()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()
