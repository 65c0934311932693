"""In the limited process: TensorFlow loads the model, fixes its shapes and writes it as TFLite.

Static shapes are what lets recurrent layers be written out. The TFLite file goes to a folder that the parent made;
what there is to say about the model goes back as plain data.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from fleetui.workshop.errors import MissingExtra, ModelError, UnsupportedError
from fleetui.workshop.frontends.base import Port
from fleetui.workshop.frontends.summary import settle_all
from fleetui.workshop.frontends.tensorflow.check import check_graph, keras_config
from fleetui.workshop.options import InputSpec

SIGNATURE = "serving_default"


def tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow's own, at its own lines
            import tensorflow as tf
    except ImportError as error:
        raise MissingExtra("A Keras or TensorFlow model", "tensorflow") from error
    return tf


class Loaded:
    """A model with named inputs and outputs: ``call`` takes tensors by name and gives tensors by name."""

    def __init__(self, inputs: list[Port], outputs: list[Port], call: Any, keep: Any) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.call = call
        self.keep = keep
        self.parameters = 0
        self.operators: dict[str, int] = {}
        self.details: dict[str, Any] = {}


def load(kind: str, path: Path) -> Loaded:
    return _load_keras(path) if kind == "keras" else _load_saved_model(path)


def _load_keras(path: Path) -> Loaded:
    config = keras_config(path)
    tf = tensorflow()
    import keras  # type: ignore[import-untyped]  # has none

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own, at its own lines
        named = path
        with contextlib.ExitStack() as stack:
            if path.suffix not in {".keras", ".h5"}:  # Keras goes by the name, we do not
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetui-"))
                named = Path(folder, "model.h5" if path.read_bytes()[:4] == b"\x89HDF" else "model.keras")
                named.symlink_to(path.absolute())
            try:
                model = keras.models.load_model(named, compile=False, safe_mode=True)
            except Exception as error:
                words = (str(error).splitlines() or [""])[0]
                raise ModelError(f"Keras cannot load {path.name}: {words:.200}", "Save it again") from error
    if not getattr(model, "inputs", None):
        raise UnsupportedError(
            "The Keras model has no inputs of known shape", "Build it first: model.build((None, …)), then save it"
        )
    inputs = _ports([(x.name, x.shape, x.dtype) for x in model.inputs])
    names = getattr(model, "output_names", None) or [model.layers[-1].name]  # a Sequential has none
    outputs = _ports([(name, y.shape, y.dtype) for name, y in zip(names, model.outputs, strict=True)])

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        given = [feeds[p.name] for p in inputs]
        made = tf.nest.flatten(model(given[0] if len(given) == 1 else given, training=False))
        return {p.name: y for p, y in zip(outputs, made, strict=True)}

    loaded = Loaded(inputs, outputs, call, model)
    loaded.parameters = int(model.count_params())
    loaded.operators = dict(Counter(type(layer).__name__ for layer in model.layers))
    loaded.details = {"keras_version": keras.__version__, "network": str(config.get("class_name"))}
    return loaded


def _load_saved_model(path: Path) -> Loaded:
    counts = check_graph(path)
    tf = tensorflow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow's own, at its own lines
            model = tf.saved_model.load(str(path))
    except Exception as error:
        words = (str(error).splitlines() or [""])[0]
        raise ModelError(f"TensorFlow cannot load {path.name}: {words:.200}", "Export it again") from error
    signatures = dict(model.signatures)
    if not signatures:
        raise UnsupportedError("The SavedModel has no signature", "Export it with model.export('folder')")
    key = SIGNATURE if SIGNATURE in signatures else min(signatures)
    function = signatures[key]
    inputs = _ports([(n, s.shape, s.dtype.name) for n, s in function.structured_input_signature[1].items()])
    outputs = _ports([(n, s.shape, s.dtype.name) for n, s in sorted(function.structured_outputs.items())])

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        return dict(function(**feeds))

    loaded = Loaded(inputs, outputs, call, model)
    loaded.operators = counts
    loaded.parameters = sum(int(v.shape.num_elements() or 0) for v in getattr(model, "variables", []) or [])
    loaded.details = {"signature": key, "tensorflow_version": tf.__version__}
    return loaded


def _ports(found: list[tuple[str, Any, str]]) -> list[Port]:
    """Names that a function may have as arguments; open dimensions get names."""
    ports: list[Port] = []
    for name, shape, dtype in found:
        if shape is None or getattr(shape, "rank", 0) is None:
            raise UnsupportedError(
                f"{name!r} has an unknown number of dimensions", "Export the model with known shapes"
            )
        clean = re.sub(r"\W", "_", name.split(":")[0]).strip("_") or "value"
        clean = f"x_{clean}" if clean[0].isdigit() else clean
        while any(p.name == clean for p in ports):
            clean += "_again"
        sizes = tuple(
            int(d) if d is not None else "batch" if at == 0 else f"{clean}_{at}" for at, d in enumerate(shape)
        )
        ports.append(Port(clean, sizes, str(dtype)))
    return ports


def run(kind: str, path: str, inputs: list[Any], target: str) -> dict[str, Any]:
    specs = [InputSpec(name, tuple(shape), dtype) for name, shape, dtype in inputs]
    loaded = load(kind, Path(path))
    tf = tensorflow()
    shapes = settle_all(loaded.inputs, specs)
    given = [tf.TensorSpec(shape, p.dtype, p.name) for p, (shape, _) in zip(loaded.inputs, shapes, strict=True)]

    def call(*tensors: Any) -> list[Any]:
        made = loaded.call({p.name: t for p, t in zip(loaded.inputs, tensors, strict=True)})
        # A result that is an input, or another result too, would lose its place among the outputs.
        return [tf.identity(made[p.name]) for p in loaded.outputs]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own, at its own lines
        concrete = tf.function(call, autograph=False).get_concrete_function(*given)
        frozen = _freeze(concrete)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module())
        try:
            content = converter.convert()
        except Exception as error:
            raise _not_convertible(error) from error
    Path(target).write_bytes(content)
    return {
        "inputs": [[p.name, list(p.shape), p.dtype] for p in loaded.inputs],
        "outputs": [
            [name, list(p.shape), p.dtype] for name, p in zip(output_names(loaded), loaded.outputs, strict=True)
        ],
        "parameters": loaded.parameters,
        "operators": loaded.operators,
        "details": loaded.details,
    }


def _freeze(concrete: Any) -> Any:
    """Variables become constants: what the converter would leave behind as state."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(concrete, lower_control_flow=False)


def output_names(loaded: Loaded) -> list[str]:
    """Outputs' public names: none may be an input's too."""
    inputs = {p.name for p in loaded.inputs}
    return [f"{p.name}_out" if p.name in inputs else p.name for p in loaded.outputs]


def _not_convertible(error: Exception) -> UnsupportedError:
    """TensorFlow's converter names what it cannot bring to TFLite in a long text."""
    text = str(error)
    named = sorted(set(re.findall(r"\btf\.([A-Z]\w+)", text)))
    place = re.search(r'loc\(.*?"([^"]*?)"', text)
    where = place.group(1).rstrip(":") if place else ""
    what = ", ".join(named[:6]) or (text.splitlines() or [""])[0][:160]
    return UnsupportedError(
        f"TensorFlow cannot bring {what} to its portable form" + (f" (at {where:.120})" if where else ""),
        "Replace it in the model, or export the model to ONNX with tf2onnx",
        operator=named[0] if named else "",
        node=where,
    )
