"""Linear models and support vector machines."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.frontends.onnx_ml.node import MlNode, integer_labels, labelled, pair, transformed
from fleetui.workshop.graph.ir import Array, Value


def _weights(n: MlNode, x: Value, outputs: int) -> tuple[Value, Value | None]:
    weights, bias = n.numbers("coefficients"), n.numbers("intercepts")
    if outputs < 1 or weights.size != outputs * x.shape[1] or bias.size not in {0, outputs}:
        n.broken(f"it has {weights.size} coefficients for {x.shape[1]} features and {outputs} outputs")
    table = np.ascontiguousarray(weights.reshape(outputs, -1).T)
    return n.const(table, "float32"), n.const(bias, "float32") if bias.size else None


def regressor(n: MlNode) -> list[Value]:
    x = n.floats(n.table())
    weights, bias = _weights(n, x, int(n.number("targets", 1)))
    _untransformed(n)
    return [n.op("dense", x, weights, bias)]


def _untransformed(n: MlNode) -> None:
    """Runtimes do not agree on what a transform means here."""
    if n.text("post_transform", "NONE") != "NONE":
        n.refuse("transforms its scores, which we do not do", "Export it with raw scores")


def classifier(n: MlNode) -> list[Value]:
    labels = integer_labels(n, "classlabels_strings", "classlabels_ints")
    x = n.floats(n.table())
    outputs = n.numbers("coefficients").size // max(1, x.shape[1])
    weights, bias = _weights(n, x, outputs)
    scores = n.op("dense", x, weights, bias)
    post = n.text("post_transform", "NONE")
    if outputs == 1 and len(labels) == 2:
        if post not in {"NONE", "LOGISTIC"}:
            n.refuse("has one score for two classes, and a transform for more", "Export a score for each class")
        above = n.op("cast", n.by("greater", scores, 0.0), to="int64")
        place = n.op("reshape", above, shape=(scores.shape[0],))
        label = n.op("gather", n.const(labels, "int64"), place, axis=0)
        share = n.op("sigmoid", scores) if post == "LOGISTIC" else scores
        return [label, pair(n, share, negative=False)]
    if len(labels) != outputs:
        n.broken(f"it has {outputs} outputs for {len(labels)} labels")
    return [labelled(n, scores, labels), transformed(n, scores, post)]


# ---------------------------------------------------------------- support vectors


def _kernel(n: MlNode, x: Value, vectors: Array) -> Value:
    """How alike each row is to each support vector: [rows, vectors]."""
    kind = n.text("kernel_type", "LINEAR")
    gamma, shift, degree = (*n.numbers("kernel_params").astype(np.float64), 0.0, 0.0, 0.0)[:3]
    transposed = n.const(np.ascontiguousarray(vectors.T), "float32")
    product = n.op("dense", x, transposed, None)
    if kind == "LINEAR":
        return product
    if kind == "RBF":
        own = n.reduce("sum", n.op("mul", x, x))
        other = n.const((vectors.astype(np.float64) ** 2).sum(1), "float32")
        apart = n.op("sub", n.op("add", own, other), n.by("mul", product, 2.0))
        return n.op("exp", n.by("mul", apart, -gamma))
    inner = n.by("add", n.by("mul", product, gamma), shift)
    if kind == "POLY":
        return n.by("pow", inner, degree)
    if kind == "SIGMOID":
        return n.op("tanh", inner)
    raise n.damage(f"there is no kernel {kind!r}")


def _vectors(n: MlNode, x: Value, count: int) -> Array:
    flat = n.numbers("support_vectors")
    if count < 1 or flat.size != count * x.shape[1]:
        n.broken(f"it has {flat.size} numbers for {count} support vectors of {x.shape[1]} features")
    return flat.reshape(count, x.shape[1])


def svm_regressor(n: MlNode) -> list[Value]:
    x = n.floats(n.table())
    count = int(n.number("n_supports", 0))
    weights, rho = n.numbers("coefficients"), n.numbers("rho")
    if rho.size < 1:
        n.broken("it has no rho")
    bias = n.const(rho[:1], "float32")
    if count > 0:
        alike = _kernel(n, x, _vectors(n, x, count))
        if weights.size != count:
            n.broken(f"it has {weights.size} coefficients for {count} support vectors")
        made = n.op("dense", alike, n.const(weights.reshape(-1, 1), "float32"), bias)
    else:
        if weights.size != x.shape[1]:
            n.broken(f"it has {weights.size} coefficients for {x.shape[1]} features")
        made = n.op("dense", _linear_only(n, x), n.const(weights.reshape(-1, 1), "float32"), bias)
    if int(n.number("one_class", 0)):
        one = n.const(1.0, "float32")
        return [n.op("where", n.by("greater", made, 0.0), one, n.op("neg", one))]
    _untransformed(n)
    return [made]


def _linear_only(n: MlNode, x: Value) -> Value:
    if n.text("kernel_type", "LINEAR") != "LINEAR":
        n.refuse("has a kernel but no support vectors", "Export the model again")
    return x


def svm_classifier(n: MlNode) -> list[Value]:
    """The class by votes, and the decisions. Probabilities are found by iterating: they are refused."""
    labels = integer_labels(n, "classlabels_strings", "classlabels_ints")
    x = n.floats(n.table())
    per = n.ints("vectors_per_class")
    classes = len(labels)
    if (per < 0).any() or len(per) != classes or classes < 2:
        n.refuse("is not a machine of support vectors for two or more classes", "Export it as a LinearClassifier")
    _untransformed(n)
    if n.numbers("prob_a").size:
        n.refuse("gives probabilities, which are found by iterating", "Export it with raw scores")
    vectors = _vectors(n, x, int(per.sum()))
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    weights, rho = n.numbers("coefficients"), n.numbers("rho")
    if weights.size != (classes - 1) * len(vectors) or rho.size != len(pairs):
        n.broken("its coefficients do not fit its support vectors")
    table = weights.reshape(classes - 1, -1)
    starts = np.concatenate([[0], np.cumsum(per)])
    joint = np.zeros((len(vectors), len(pairs)), np.float32)
    for place, (i, j) in enumerate(pairs):
        mine, other = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        joint[mine, place] = table[j - 1, mine]
        joint[other, place] = table[i, other]
    decisions = n.op("dense", _kernel(n, x, vectors), n.const(joint), n.const(rho, "float32"))
    first = n.op("cast", n.by("greater", decisions, 0.0), to="float32")
    votes = np.zeros((2, len(pairs), classes), np.float32)
    for place, (i, j) in enumerate(pairs):
        votes[0, place, i] = votes[1, place, j] = 1
    second = n.op("sub", n.const(1.0, "float32"), first)
    counted = n.op(
        "add", n.op("dense", first, n.const(votes[0]), None), n.op("dense", second, n.const(votes[1]), None)
    )
    label = labelled(n, counted, labels)
    return [label, decisions if classes > 2 else pair(n, decisions, negative=True)]
