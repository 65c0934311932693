"""What prepares features: scaling, one-hot, filling in, choosing, joining, mapping numbers to numbers."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.frontends.onnx_ml.node import MlNode
from fleetui.workshop.graph.ir import Array, Value


def scaler(n: MlNode) -> list[Value]:
    x = n.floats(n.input())
    width = x.shape[-1] if x.rank else 1
    for name, op in (("offset", "sub"), ("scale", "mul")):
        numbers = n.numbers(name)
        if numbers.size not in {0, 1, width}:
            n.broken(f"{name} has {numbers.size} numbers for {width} features")
        if numbers.size:
            x = n.op(op, x, n.const(numbers, "float32"))
    return [x]


def one_hot(n: MlNode) -> list[Value]:
    n.no_strings("cats_strings")
    categories = n.ints("cats_int64s")
    x = n.input()
    if x.dtype != "int64":
        x = n.op("cast", x, to="int64")
    x = n.op("reshape", x, shape=(*x.shape, 1))
    return [n.op("cast", n.op("equal", x, n.const(categories)), to="float32")]


def imputer(n: MlNode) -> list[Value]:
    x = n.input()
    width = x.shape[-1] if x.rank else 1
    whole = x.dtype not in {"float32", "float64"}
    fill: Array = n.ints("imputed_value_int64s") if whole else n.numbers("imputed_value_floats")
    if fill.size not in {1, width}:
        n.broken(f"it fills in {fill.size} numbers for {width} features")
    if whole:
        lost = n.op("equal", x, n.const(int(n.number("replaced_value_int64", 0)), x.dtype))
    else:
        marker = n.number("replaced_value_float", 0.0)
        lost = n.op("isnan", x) if np.isnan(marker) else n.by("equal", x, marker)
    return [n.op("where", lost, n.const(fill, x.dtype), x)]


def normalizer(n: MlNode) -> list[Value]:
    x = n.floats(n.input())
    kind = n.text("norm", "MAX")
    if kind == "MAX":
        size = n.reduce("max", x)
    elif kind == "L1":
        size = n.reduce("sum", n.op("abs", x))
    elif kind == "L2":
        size = n.op("sqrt", n.reduce("sum", n.op("mul", x, x)))
    else:
        n.broken(f"there is no norm {kind!r}")
    safe = n.op("where", n.by("equal", size, 0.0), n.const(1.0, "float32"), size)
    return [n.op("div", x, safe)]


def binarizer(n: MlNode) -> list[Value]:
    x = n.input()
    return [n.op("cast", n.by("greater", x, n.number("threshold", 0.0)), to=x.dtype)]


def extractor(n: MlNode) -> list[Value]:
    x, index = n.input(0), n.input(1)
    if x.rank == 1:
        x = n.op("reshape", x, shape=(1, x.shape[0]))
    if index.rank != 1:
        index = n.op("reshape", index, shape=(index.size,))
    return [n.op("gather", x, index, axis=x.rank - 1)]


def vectorizer(n: MlNode) -> list[Value]:
    tables = [n.floats(n.table(index)) for index in range(len(n.inputs))]
    wanted = n.ints("inputdimensions")
    if wanted.size and [t.shape[1] for t in tables] != wanted.tolist():
        n.broken("its inputs have other widths than it says")
    return [n.op("concat", *tables, axis=1) if len(tables) > 1 else tables[0]]


def label_encoder(n: MlNode) -> list[Value]:
    """Number to number, by comparing with every key."""
    n.no_strings("keys_strings", "values_strings", "classes_strings")
    x = n.input()
    keys, values, default = _mapping(n)
    if len(keys) != len(values) or not keys.size:
        n.broken("its keys and values do not fit")
    if np.dtype(x.dtype) != keys.dtype:
        n.broken(f"it maps {keys.dtype}, but is given {x.dtype}")
    wide = n.op("reshape", x, shape=(*x.shape, 1))
    hit = n.op("equal", wide, n.const(keys))
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        hit = n.op("logical_or", hit, n.op("logical_and", n.op("isnan", wide), n.const(np.isnan(keys))))
    flags = n.op("cast", hit, to="int32")
    place = n.op("argmax", flags, axis=x.rank, keepdims=False, last=False)
    found = n.op("gather", n.const(values), place, axis=0)
    known = n.op("reduce", flags, kind="max", axes=(x.rank,), keepdims=False)
    return [n.op("where", n.op("cast", known, to="bool"), found, n.const(default, str(values.dtype)))]


def _mapping(n: MlNode) -> tuple[Array, Array, float]:
    if "keys_tensor" in n.attrs or "values_tensor" in n.attrs:
        keys, values, default = n.tensor("keys_tensor"), n.tensor("values_tensor"), n.tensor("default_tensor")
        if keys.dtype.kind not in "if" or values.dtype.kind not in "if":
            n.refuse("maps text, and we compute with numbers only")
        return keys, values, default[0] if default.size else 0
    keys = n.ints("keys_int64s") if n.attrs.get("keys_int64s") else n.numbers("keys_floats")
    if n.attrs.get("values_int64s"):
        return keys, n.ints("values_int64s"), int(n.number("default_int64", -1))
    return keys, n.numbers("values_floats"), n.number("default_float", -0.0)


def category_mapper(n: MlNode) -> list[Value]:
    n.refuse("maps between text and numbers, and we compute with numbers only")


def zip_map(n: MlNode) -> list[Value]:
    """Maps of labels become what they were made of: a table with a column for each label."""
    return [n.input()]
