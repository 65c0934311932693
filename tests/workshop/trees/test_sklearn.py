"""scikit-learn: estimators fitted for real, exported to safe JSON, read back; pickles are never opened."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import HostileModel, UnsupportedError, WorkshopError
from fleetui.workshop.frontends.sklearn import FRONTEND, export, export_forest
from fleetui.workshop.graph.ir import Array, run
from fleetui.workshop.options import InputSpec
from fleetui.workshop.trees import cutforest
from tests.helpers.trees import computed

pytest.importorskip("sklearn")

IRIS, CANCER, DIABETES, TWO = "iris", "breast_cancer", "diabetes", "two"


def bundled(name: str) -> tuple[Array, Array]:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{DIABETES if name == TWO else name}")(return_X_y=True)
    return x, np.stack([y, y**2], 1) if name == TWO else y


def sk(path: str, **settings: Any) -> Callable[[], Any]:
    """An estimator of scikit-learn, imported when it is made."""
    module, name = path.split(".")
    return lambda: getattr(importlib.import_module(f"sklearn.{module}"), name)(**settings)


def chain(*steps: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: importlib.import_module("sklearn.pipeline").make_pipeline(*(step() for step in steps))


SEED = {"random_state": 0}
SIX, FIVE = {"n_estimators": 6, **SEED}, {"max_iter": 5, **SEED}
GAPS = 1

CASES: dict[str, tuple[Callable[[], Any], str, str, int]] = {
    "forest, classes": (sk("ensemble.RandomForestClassifier", n_estimators=12, **SEED), IRIS, "float32", GAPS),
    "forest": (sk("ensemble.RandomForestRegressor", n_estimators=8, **SEED), DIABETES, "float32", GAPS),
    "extra trees, classes": (sk("ensemble.ExtraTreesClassifier", n_estimators=8, **SEED), CANCER, "float32", 0),
    "extra trees, two targets": (sk("ensemble.ExtraTreesRegressor", n_estimators=6, **SEED), TWO, "float32", 0),
    "tree, classes": (sk("tree.DecisionTreeClassifier", **SEED), CANCER, "float32", GAPS),
    "boosting, classes": (sk("ensemble.GradientBoostingClassifier", **SIX), IRIS, "float32", 0),
    "boosting, two classes": (sk("ensemble.GradientBoostingClassifier", **SIX), CANCER, "float32", 0),
    "boosting, exponential": (
        sk("ensemble.GradientBoostingClassifier", n_estimators=6, loss="exponential", **SEED), CANCER, "float32", 0,
    ),
    "boosting": (sk("ensemble.GradientBoostingRegressor", n_estimators=6, **SEED), DIABETES, "float32", 0),
    "histogram, classes": (sk("ensemble.HistGradientBoostingClassifier", **FIVE), IRIS, "float64", GAPS),
    "histogram, two classes": (sk("ensemble.HistGradientBoostingClassifier", **FIVE), CANCER, "float64", GAPS),
    "histogram": (sk("ensemble.HistGradientBoostingRegressor", max_iter=5, **SEED), DIABETES, "float64", GAPS),
    "histogram, poisson": (
        sk("ensemble.HistGradientBoostingRegressor", max_iter=5, loss="poisson", **SEED), DIABETES, "float64", 0,
    ),
    "isolation": (sk("ensemble.IsolationForest", n_estimators=9, **SEED), CANCER, "float32", 0),
    "isolation, some features": (
        sk("ensemble.IsolationForest", n_estimators=9, max_features=0.5, contamination=0.1, **SEED),
        CANCER, "float32", 0,
    ),
    "logistic, classes": (
        chain(sk("preprocessing.StandardScaler"), sk("linear_model.LogisticRegression", max_iter=300)),
        IRIS, "float64", 0,
    ),
    "logistic": (
        chain(sk("preprocessing.MinMaxScaler"), sk("linear_model.LogisticRegression", max_iter=300)),
        CANCER, "float32", 0,
    ),
    "ridge": (
        chain(sk("impute.SimpleImputer"), sk("preprocessing.RobustScaler"), sk("linear_model.Ridge")),
        DIABETES, "float64", GAPS,
    ),
    "support vectors": (chain(sk("preprocessing.Normalizer"), sk("svm.LinearSVC")), CANCER, "float64", 0),
    "scaled forest": (
        chain(
            sk("impute.SimpleImputer"), sk("preprocessing.StandardScaler"),
            sk("ensemble.RandomForestClassifier", n_estimators=5, **SEED),
        ),
        CANCER, "float32", GAPS,
    ),
}  # fmt: skip


def fitted(name: str, folder: Path) -> tuple[Any, Path, Array]:
    made, source, dtype, gaps = CASES[name]
    estimator, (x, y) = made(), bundled(source)
    if gaps:
        x[np.random.default_rng(0).random(x.shape) < 0.1] = np.nan
    with importlib.import_module("threadpoolctl").threadpool_limits(1):
        estimator.fit(x, y) if "isolation" not in name else estimator.fit(x)
    path = folder / "model.json"
    export(estimator, path)
    return estimator, path, x.astype(dtype)


def wanted(estimator: Any, x: Array, names: set[str]) -> dict[str, Array]:
    asked = {
        "prediction": "predict", "label": "predict", "probabilities": "predict_proba", "score": "score_samples",
        "decision": "decision_function",
    }  # fmt: skip
    return {name: getattr(estimator, method)(x) for name, method in asked.items() if name in names}


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_estimators(name: str, tmp_path: Path) -> None:
    estimator, path, x = fitted(name, tmp_path)
    assert FRONTEND.sniff(path.read_bytes()[: 64 << 10], path)
    graph = FRONTEND.load(path, [InputSpec("x", x.shape, str(x.dtype))])
    graph.verify()
    found = run(graph, {"x": x})
    want = wanted(estimator, x, set(found))
    assert want
    for key, array in want.items():
        assert found[key].shape == array.shape
        np.testing.assert_allclose(found[key], array, rtol=1e-4 if "logistic" in name else 1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["forest, classes", "isolation", "histogram, two classes"])
def test_compiled_outputs_are_the_estimators(name: str, tmp_path: Path) -> None:
    estimator, path, x = fitted(name, tmp_path)
    graph = FRONTEND.load(path, [InputSpec("x", x.shape, str(x.dtype))])
    results, _ = computed(graph, {"x": x}, (1,))
    for key, array in wanted(estimator, x, set(results[0])).items():
        np.testing.assert_allclose(results[0][key], array, rtol=1e-12, atol=1e-14)


def test_text_classes_become_places(tmp_path: Path) -> None:
    x, y = bundled(IRIS)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = sk("ensemble.RandomForestClassifier", n_estimators=3, **SEED)().fit(x, names)
    path = tmp_path / "model.json"
    export(model, path)
    found = run(FRONTEND.load(path, [InputSpec("x", x.shape)]), {"x": x.astype(np.float32)})
    np.testing.assert_array_equal(model.classes_[found["label"]], model.predict(x))
    assert "setosa" in FRONTEND.inspect(path, []).warnings[0]


def test_cut_forests_are_written_the_same_way(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(200, 3))
    path = tmp_path / "forest.json"
    export_forest(cutforest.build(data, trees=5, sample=64), path)
    scores = run(FRONTEND.load(path, [InputSpec("x", (1, 3))]), {"x": np.full((1, 3), 9, np.float32)})["score"]
    assert scores.shape == (1,)
    assert scores[0] > 5


def test_what_cannot_be_exported_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    with pytest.raises(UnsupportedError, match="KNeighborsClassifier"):
        export(sk("neighbors.KNeighborsClassifier")().fit(*bundled(IRIS)), path)
    categorical = sk("ensemble.HistGradientBoostingRegressor", max_iter=2, categorical_features=[1])()
    x, y = bundled(DIABETES)
    with pytest.raises(UnsupportedError, match="categorical"):
        export(categorical.fit(np.round(x * 30) + 9, y), path)
    assert not path.exists()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_pickles_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.pkl", "model.joblib"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Bomb()))
        assert FRONTEND.sniff(path.read_bytes(), path)
        for act in (FRONTEND.load, FRONTEND.inspect):
            with pytest.raises(HostileModel, match="export"):
                act(path, [])
    assert not (tmp_path / "exploded").exists()


def test_damaged_files_end_in_a_sentence(tmp_path: Path) -> None:
    _, path, _ = fitted("scaled forest", tmp_path)
    text = path.read_text()
    broken = tmp_path / "broken.json"
    for share in np.linspace(0.01, 0.99, 25):
        broken.write_text(text[: int(len(text) * share)])
        with pytest.raises(WorkshopError):
            FRONTEND.load(broken, [])
    changes: tuple[dict[str, Any], ...] = (
        {"version": 9}, {"steps": []}, {"steps": [{"kind": "shell"}]}, {"features": 10**9}, {"features": -1},
        {"features": "x"}, {"steps": [{"kind": "trees"}]}, {"format": "other"}, {"features": 7},
    )  # fmt: skip
    for change in changes:
        broken.write_text(json.dumps({**json.loads(text), **change}))
        with pytest.raises(WorkshopError):
            FRONTEND.load(broken, [])
