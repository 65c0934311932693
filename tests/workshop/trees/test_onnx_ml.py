"""Operators of ``ai.onnx.ml`` beside ONNX Runtime, the package's own cases, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import ModelError, UnsupportedError, WorkshopError
from fleetui.workshop.frontends.onnx import FRONTEND
from fleetui.workshop.graph.ir import Array, run
from fleetui.workshop.options import InputSpec
from tests.helpers.trees import computed

ONE_LABEL = ("label", "scores")
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def table(seed: int = 0, gaps: float = 0.0) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(25, 4)).astype(np.float32)
    x[rng.random(x.shape) < gaps] = np.nan
    return x


def written(path: Path, op: str, x: Array, outs: tuple[str, ...] = ("y",), **attrs: Any) -> Path:
    """A model of one node on ``x``."""
    import onnx
    from onnx import TensorProto, helper

    kinds = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}
    node = helper.make_node(op, ["x"], list(outs), domain="ai.onnx.ml", name="it", **attrs)
    given = helper.make_tensor_value_info("x", kinds[str(x.dtype)], [None, *x.shape[1:]])
    made = [
        helper.make_tensor_value_info(name, TensorProto.INT64 if name == "label" else TensorProto.FLOAT, None)
        for name in outs
    ]
    version = 5 if op == "TreeEnsemble" else 3
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", version)]
    graph = helper.make_graph([node], "g", [given], made)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def beside(path: Path, x: Array, rtol: float = 1e-5) -> dict[str, Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [out.name for out in session.get_outputs()]
    want = dict(zip(names, session.run(None, {"x": x}), strict=True))
    found = run(FRONTEND.load(path, [InputSpec("x", x.shape)]), {"x": x})
    for name, array in want.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=rtol, atol=1e-6, err_msg=name)
    return found


# ---------------------------------------------------------------- features and linear models


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("Normalizer", {"norm": "MAX"}),
        ("Normalizer", {"norm": "L1"}),
        ("Normalizer", {"norm": "L2"}),
        ("Scaler", {"offset": [1.0, 2.0, 3.0, 4.0], "scale": [0.5] * 4}),
        ("Scaler", {"offset": [1.0], "scale": [3.0]}),
        ("Binarizer", {"threshold": 0.1}),
        ("Imputer", {"imputed_value_floats": [9.0, 8.0, 7.0, 6.0], "replaced_value_float": float("nan")}),
        ("LinearRegressor", {"coefficients": [0.3, 0.1, -0.2, 0.4], "intercepts": [0.1]}),
        ("LinearRegressor", {"coefficients": [0.3, 0.1, -0.2, 0.4] * 2, "intercepts": [0.1, 0.2], "targets": 2}),
    ],
)
def test_features_and_regressors(op: str, attrs: dict[str, Any], tmp_path: Path) -> None:
    x = table(gaps=0.2 if op == "Imputer" else 0.0)
    beside(written(tmp_path / "m.onnx", op, x, **attrs), x)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("OneHotEncoder", {"cats_int64s": [1, 2, 5], "zeros": 1}),
        ("LabelEncoder", {"keys_int64s": [1, 2, 5], "values_floats": [0.5, 0.6, 0.7], "default_float": -3.0}),
    ],
)
def test_numbers_for_numbers(op: str, attrs: dict[str, Any], tmp_path: Path) -> None:
    x = np.random.default_rng(1).integers(0, 7, (25, 2))
    beside(written(tmp_path / "m.onnx", op, x, **attrs), x)


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
def test_linear_classifiers(post: str, tmp_path: Path) -> None:
    x, path = table(), tmp_path / "m.onnx"
    weights = [0.3, 0.1, -0.2, 0.4, 0.1, -0.7, 0.5, 0.0, -0.3, 0.2, 0.2, 0.9]
    attrs = {"coefficients": weights, "intercepts": [0.1, 0.2, 0.3], "classlabels_ints": [3, 5, 9]}
    beside(written(path, "LinearClassifier", x, ONE_LABEL, **attrs, post_transform=post), x)
    if post in {"NONE", "LOGISTIC"}:
        attrs = {"coefficients": weights[:4], "intercepts": [0.1], "classlabels_ints": [3, 5]}
        beside(written(path, "LinearClassifier", x, ONE_LABEL, **attrs, post_transform=post), x)


@pytest.mark.parametrize("kernel", ["LINEAR", "RBF", "POLY", "SIGMOID"])
def test_support_vectors(kernel: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, path = table(), tmp_path / "m.onnx"
    common = {
        "kernel_type": kernel, "kernel_params": [0.3, 0.2, 3.0],
        "support_vectors": rng.normal(size=24).astype(np.float32).tolist(),
    }  # fmt: skip
    attrs = {"n_supports": 6, "coefficients": rng.normal(size=6).tolist(), "rho": [0.2]}
    beside(written(path, "SVMRegressor", x, **common, **attrs), x, 1e-4)
    for per, pairs in (([2, 4], 1), ([2, 2, 2], 3)):
        attrs = {
            "vectors_per_class": per, "coefficients": rng.normal(size=6 * (len(per) - 1)).tolist(),
            "rho": rng.normal(size=pairs).tolist(), "classlabels_ints": [4, 7, 8][: len(per)],
        }  # fmt: skip
        beside(written(path, "SVMClassifier", x, ONE_LABEL, **common, **attrs), x, 1e-4)


# ---------------------------------------------------------------- trees


def nodes(x: Array, modes: tuple[str, ...], trees: int = 5, depth: int = 3) -> tuple[dict[str, Any], list[Any]]:
    """Full trees whose thresholds are often numbers that occur."""
    rng = np.random.default_rng(7)
    names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids",
             "missing_value_tracks_true")  # fmt: skip
    rows: list[list[Any]] = []
    leaves = []
    for t in range(trees):
        for i in range(2 ** (depth + 1) - 1):
            if i >= 2**depth - 1:
                leaves.append((t, i))
                rows.append([t, i, 0, "LEAF", 0.0, 0, 0, 0])
                continue
            feature = int(rng.integers(4))
            value = float(np.nan_to_num(x[rng.integers(len(x)), feature]))
            rows.append([t, i, feature, str(rng.choice(modes)), value, 2 * i + 1, 2 * i + 2, int(rng.integers(2))])
    attrs = {f"nodes_{name}": list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    return attrs, leaves


@pytest.mark.parametrize("modes", [MODES[:1], MODES], ids=["less", "all"])
@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_tree_regressors(aggregate: str, modes: tuple[str, ...], tmp_path: Path) -> None:
    x = table(2, gaps=0.15)
    attrs, leaves = nodes(x, modes)
    weights = np.random.default_rng(5).normal(size=len(leaves)).tolist()
    attrs |= {"target_treeids": [t for t, _ in leaves], "target_nodeids": [i for _, i in leaves],
              "target_ids": [0] * len(leaves), "target_weights": weights, "base_values": [0.3]}  # fmt: skip
    path = written(
        tmp_path / "m.onnx", "TreeEnsembleRegressor", x, **attrs, n_targets=1, aggregate_function=aggregate
    )
    beside(path, x)


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("positive", [True, False], ids=["shares", "margins"])
def test_tree_classifiers(post: str, positive: bool, tmp_path: Path) -> None:
    x = table(3, gaps=0.15)
    attrs, leaves = nodes(x, MODES)
    weights = np.random.default_rng(6).normal(size=len(leaves)) * 0.1
    weights = np.abs(weights) if positive else weights
    common = {"class_treeids": [t for t, _ in leaves], "class_nodeids": [i for _, i in leaves],
              "class_weights": weights.tolist(), "post_transform": post}  # fmt: skip
    one = {"class_ids": [0] * len(leaves), "classlabels_int64s": [3, 8], "base_values": [0.1]}
    second = {"class_ids": [1] * len(leaves), "classlabels_int64s": [3, 8]}
    three = {"class_ids": [t % 3 for t, _ in leaves], "classlabels_int64s": [3, 8, 9]}
    for more in (one, second, three):
        path = written(tmp_path / "m.onnx", "TreeEnsembleClassifier", x, ONE_LABEL, **attrs, **common, **more)
        beside(path, x)


def test_leaves_that_know_all_classes_compile(tmp_path: Path) -> None:
    x = table(4)
    attrs, leaves = nodes(x, MODES[:1])
    shares = np.random.default_rng(6).dirichlet([1, 1, 1], len(leaves)) / 5
    owners = [(t, i, k) for t, i in leaves for k in range(3)]
    more = {"class_treeids": [t for t, _, _ in owners], "class_nodeids": [i for _, i, _ in owners],
            "class_ids": [k for _, _, k in owners], "class_weights": shares.reshape(-1).tolist(),
            "classlabels_int64s": [0, 1, 2]}  # fmt: skip
    path = written(tmp_path / "m.onnx", "TreeEnsembleClassifier", x, ONE_LABEL, **attrs, **more)
    want = beside(path, x)
    graph = FRONTEND.load(path, [InputSpec("x", x.shape)])
    inner = next(node for node in graph.nodes if node.op == "trees")
    graph.nodes, graph.outputs = [inner], list(inner.outputs)
    results, detail = computed(graph, {"x": x})
    np.testing.assert_allclose(next(iter(results[0].values())), want["scores"], rtol=1e-6)
    assert detail["layout"] == "complete 3"


def test_the_packages_own_cases() -> None:
    """Those with numbers alone; the others are refused, none is wrong."""
    from onnx.backend.test.case.node import collect_testcases

    passed, refused = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package overflows casts on purpose while it makes other cases
        cases = collect_testcases(None)
    for case in cases:
        if not any(node.domain == "ai.onnx.ml" for node in case.model.graph.node):
            continue
        from fleetui.workshop.frontends.onnx.frontend import import_source
        from fleetui.workshop.frontends.onnx.reading import check

        try:
            graph = import_source(check(case.model, Path()))
        except UnsupportedError:
            refused.append(case.name)
            continue
        for inputs, outputs in case.data_sets:
            found = run(graph, dict(zip([v.name for v in case.model.graph.input], inputs, strict=True)))
            for value, want in zip(case.model.graph.output, outputs, strict=True):
                np.testing.assert_allclose(found[value.name], want, rtol=1e-5)
        passed.append(case.name)
    assert {"test_ai_onnx_ml_tree_ensemble_single_tree", "test_ai_onnx_ml_tree_ensemble_set_membership"} <= set(
        passed
    )
    assert all("string" in name or "mapping" in name for name in refused)


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("op", "outs", "attrs"),
    [
        ("TreeEnsembleClassifier", ONE_LABEL, {"classlabels_strings": ["a", "b"]}),
        ("LinearClassifier", ONE_LABEL, {"classlabels_strings": ["a", "b"], "coefficients": [1.0] * 4}),
        ("OneHotEncoder", ("y",), {"cats_strings": ["a"]}),
        ("LabelEncoder", ("y",), {"keys_strings": ["a"], "values_int64s": [1]}),
        ("CategoryMapper", ("y",), {"cats_strings": ["a"], "cats_int64s": [1]}),
    ],
)
def test_text_is_told_what_to_do(op: str, outs: tuple[str, ...], attrs: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", op, table(), outs, **attrs)
    with pytest.raises(UnsupportedError, match="numbers") as caught:
        FRONTEND.load(path, [InputSpec("x", (25, 4))])
    assert "zipmap off" in str(caught.value)


def test_trees_that_do_not_hold_together(tmp_path: Path) -> None:
    x = table()
    attrs, leaves = nodes(x, MODES[:1], trees=1)
    attrs |= {"target_treeids": [0] * 8, "target_nodeids": [i for _, i in leaves], "target_ids": [0] * 8,
              "target_weights": [1.0] * 8, "n_targets": 1}  # fmt: skip
    cases: list[dict[str, Any]] = [
        {"nodes_truenodeids": [0, *attrs["nodes_truenodeids"][1:]]},
        {"nodes_falsenodeids": [99, *attrs["nodes_falsenodeids"][1:]]},
        {"nodes_treeids": attrs["nodes_treeids"][:-1]},
        {"nodes_featureids": [9, *attrs["nodes_featureids"][1:]]},
        {"nodes_featureids": [-2, *attrs["nodes_featureids"][1:]]},
        {"target_ids": [1] * 8},
        {"target_nodeids": [0] * 8},
        {"n_targets": 10**9},
        {"n_targets": 0},
        {"nodes_modes": ["BRANCH_WHY", *attrs["nodes_modes"][1:]]},
        {"base_values": [1.0, 2.0, 3.0]},
    ]
    for change in cases:
        path = written(tmp_path / "m.onnx", "TreeEnsembleRegressor", x, **{**attrs, **change})
        with pytest.raises(WorkshopError) as caught:
            FRONTEND.load(path, [InputSpec("x", x.shape)])
        assert isinstance(caught.value, ModelError | UnsupportedError), change
