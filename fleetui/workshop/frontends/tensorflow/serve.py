"""TensorFlow in a process of its own: ``python -m fleetui.workshop.frontends.tensorflow.serve REQUEST``.

It aborts where it does not like what it is given, and its number of threads is settled once for all in a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from fleetui.common.domain.errors import OperatorError
from fleetui.workshop.errors import ShapeError
from fleetui.workshop.frontends.summary import settle_all
from fleetui.workshop.frontends.tensorflow.convert import load, output_names, tensorflow
from fleetui.workshop.frontends.tensorflow.pipe import receive, send
from fleetui.workshop.options import InputSpec


def main(request_text: str) -> int:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between
    request = json.loads(request_text)
    try:
        call, names, version = _ready(request)
    except OperatorError as error:
        send(out, {}, refused=[error.sentence, error.fix])
        return 1
    send(out, {}, version=version)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            feeds, _ = receive(sys.stdin.buffer)
            begin = time.perf_counter()
            try:
                made = call(feeds)
            except OperatorError as error:
                send(out, {}, refused=[error.sentence, error.fix])
                continue
            seconds = time.perf_counter() - begin
            send(out, {names[name]: value for name, value in made.items()}, seconds=seconds)
    return 0


def _ready(request: dict[str, Any]) -> tuple[Any, dict[str, str], str]:
    """The model as one compiled function of arrays, run once."""
    tf = tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(int(request["threads"]))
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = load(str(request["kind"]), Path(request["path"]))
    specs = [InputSpec(name, tuple(shape), dtype) for name, shape, dtype in request["inputs"]]
    given = {
        port.name: tf.TensorSpec(shape, dtype, port.name)
        for port, (shape, dtype) in zip(loaded.inputs, settle_all(loaded.inputs, specs), strict=True)
    }
    traced = tf.function(lambda **feeds: loaded.call(feeds), autograph=False).get_concrete_function(**given)

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        for name, spec in given.items():
            if name not in feeds or tuple(feeds[name].shape) != tuple(spec.shape):
                raise ShapeError(f"The input {name} is to have the shape {list(spec.shape)}", "Give it so")
        made = traced(**{name: tf.constant(feeds[name]) for name in given})
        return {name: value.numpy() for name, value in made.items()}

    call({name: tf.zeros(spec.shape, spec.dtype).numpy() for name, spec in given.items()})
    names = dict(zip([p.name for p in loaded.outputs], output_names(loaded), strict=True))
    return call, names, str(tf.__version__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
