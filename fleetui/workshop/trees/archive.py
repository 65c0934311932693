"""Ensembles and arrays as plain JSON and back: nothing in such a file is ever executed.

An array is ``{"dtype", "shape", "data"}`` with the bytes in base64, little-endian. Shapes are believed only if the
bytes bear them out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, fields
from math import prod
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.trees.ensemble import Aggregate, Category, Ensemble, Post, Transform, make

DTYPES = frozenset({"<f4", "<f8", "<i4", "<i8", "<u4", "|b1", "|u1"})
ARRAYS = (
    "roots", "feature", "threshold", "strict", "left", "right", "missing", "default_left", "leaf", "values",
    "column", "base", "members", "inside_left",
)  # fmt: skip
PLAIN: dict[str, Any] = {
    "features": int, "outputs": int, "compare": str, "divisor": float, "base_first": bool,
    "flat": bool,
}  # fmt: skip


def broken(what: str) -> ModelError:
    return ModelError(f"The model file does not hold together: {what}", "Export the model again")


def pack(array: Array) -> dict[str, Any]:
    flat = np.ascontiguousarray(array)
    flat = flat.astype(flat.dtype.newbyteorder("<"))
    return {"dtype": flat.dtype.str, "shape": list(flat.shape), "data": base64.b64encode(flat.tobytes()).decode()}


def unpack(entry: Any) -> Array:
    if not isinstance(entry, Mapping) or entry.get("dtype") not in DTYPES:
        raise broken("an array is of no known kind")
    shape, text = entry.get("shape"), entry.get("data")
    if not isinstance(shape, list) or not all(type(d) is int and 0 <= d < 1 << 31 for d in shape):
        raise broken("an array has no sound shape")
    try:
        data = base64.b64decode(text if isinstance(text, str) else "-", validate=True)
    except (binascii.Error, ValueError):
        raise broken("an array's bytes are damaged") from None
    dtype = np.dtype(str(entry["dtype"]))
    if prod(shape) * dtype.itemsize != len(data):
        raise broken("an array has another size than it says")
    found: Array = np.frombuffer(data, dtype).reshape(shape)
    return found.astype(dtype.newbyteorder("="))


def dump(e: Ensemble) -> dict[str, Any]:
    made: dict[str, Any] = {name: getattr(e, name) for name in PLAIN}
    made |= {name: pack(array) for name in ARRAYS if (array := getattr(e, name)) is not None}
    made["aggregate"] = e.aggregate.value
    made["category"] = e.category.value
    made["sets"] = [pack(words) for words in e.sets]
    made["posts"] = [asdict(post) for post in e.posts]
    return made


def load(entry: Any) -> Ensemble:
    if not isinstance(entry, Mapping):
        raise broken("it holds no trees")
    given: dict[str, Any] = {}
    for name, kind in PLAIN.items():
        value = entry.get(name)
        if not isinstance(value, (int, float) if kind is float else kind) or (kind is int and type(value) is bool):
            raise broken(f"{name} is missing")
        given[name] = value
    given |= {name: unpack(entry[name]) for name in ARRAYS if name in entry}
    if missing := [name for name in ARRAYS[:-2] if name not in given]:
        raise broken(f"{missing[0]} is missing")
    sets, posts = entry.get("sets"), entry.get("posts")
    if (
        not isinstance(sets, list)
        or not isinstance(posts, list)
        or ("members" in given) != ("inside_left" in given)
    ):
        raise broken("its sets or outputs are missing")
    try:
        return make(
            **given,
            aggregate=Aggregate(str(entry.get("aggregate"))),
            category=Category(str(entry.get("category"))),
            sets=tuple(unpack(words) for words in sets),
            posts=tuple(_post(post) for post in posts),
        )
    except (TypeError, ValueError) as error:
        raise broken(str(error)) from None


def _post(entry: Any) -> Post:
    if not isinstance(entry, Mapping) or set(entry) != {f.name for f in fields(Post)}:
        raise broken("an output is described wrongly")
    labels = entry["labels"]
    numbers = (entry["a"], entry["b"], entry["divisor"], *labels)
    if not all(isinstance(v, (int, float)) and np.isfinite(v) for v in numbers) or entry["divisor"] == 0:
        raise broken("an output has no sound numbers")
    if entry["dtype"] not in {"float32", "float64", "int64", "int32"}:
        raise broken("an output has an unknown type")
    return Post(
        Transform(entry["transform"]), entry["dtype"], float(entry["a"]), float(entry["b"]),
        float(entry["divisor"]), tuple(labels), bool(entry["flat"]),
    )  # fmt: skip
