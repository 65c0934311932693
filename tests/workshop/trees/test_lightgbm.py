"""LightGBM: models trained for real, sums bit for bit, hostile files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import UnsupportedError, WorkshopError
from fleetui.workshop.frontends.lightgbm import FRONTEND
from fleetui.workshop.graph.ir import Array, run
from fleetui.workshop.options import InputSpec
from tests.helpers.trees import computed

lgb = pytest.importorskip("lightgbm")
ROWS, FEATURES = 300, 6
BASE = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 3, "min_data_per_group": 2, "cat_smooth": 1, "seed": 1}


def data() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES))
    x[:, 4] = rng.integers(0, 60, ROWS)
    x[:, 5] = np.where(rng.random(ROWS) < 0.5, 0, x[:, 5])
    y = (x[:, 0] > 0).astype(int) + (x[:, 4] % 3 == 1)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x, y


SPECS: dict[str, tuple[dict[str, Any], int]] = {
    "regression": ({"objective": "regression"}, 8),
    "regression of roots": ({"objective": "regression", "reg_sqrt": True}, 6),
    "quantile": ({"objective": "quantile"}, 5),
    "poisson": ({"objective": "poisson"}, 5),
    "binary": ({"objective": "binary", "sigmoid": 2.0}, 8),
    "cross entropy": ({"objective": "cross_entropy"}, 5),
    "cross entropy lambda": ({"objective": "cross_entropy_lambda"}, 5),
    "multiclass": ({"objective": "multiclass", "num_class": 3}, 5),
    "one against all": ({"objective": "multiclassova", "num_class": 3}, 5),
    "categories": ({"objective": "multiclass", "num_class": 3}, 6),
    "zero is missing": ({"objective": "regression", "zero_as_missing": True}, 6),
    "nothing is missing": ({"objective": "regression", "use_missing": False}, 6),
    "forest": ({"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, 6),
    "dart": ({"objective": "binary", "boosting": "dart"}, 6),
    "stumps": ({"objective": "regression", "num_leaves": 2}, 1),
    "single leaves": ({"objective": "regression", "min_gain_to_split": 1e9}, 3),
}


def trained(name: str, folder: Path) -> tuple[Path, Array]:
    spec, rounds = SPECS[name]
    x, y = data()
    target = y if "class" in str(spec) or "regress" in name else (y > 0).astype(int)
    categories = [4] if name in {"categories", "zero is missing"} else []
    made = lgb.Dataset(x, target, categorical_feature=categories, params={"verbose": -1})
    path = folder / "model.txt"
    lgb.train(BASE | spec, made, rounds).save_model(path)
    return path, x


def odd(x: Array, dtype: str) -> Array:
    """Categories of every odd kind, and numbers next to zero."""
    x = x.astype(dtype)
    x[:6, 4] = [-0.5, 1e9, np.inf, -1, 64, -np.inf]
    x[6:9, 5] = [1e-36, -1e-20, -0.0]
    return x


@pytest.mark.parametrize("name", SPECS)
def test_sums_are_lightgbms(name: str, tmp_path: Path) -> None:
    path, x = trained(name, tmp_path)
    assert FRONTEND.sniff(path.read_bytes()[: 64 << 10], path)
    booster = lgb.Booster(model_file=path)
    for dtype in ("float64", "float32"):
        rows = odd(x, dtype)
        graph = FRONTEND.load(path, [InputSpec("data", x.shape, dtype)])
        graph.verify()
        found = run(graph, {"data": rows})
        raw, prediction = booster.predict(rows, raw_score=True), booster.predict(rows)
        np.testing.assert_array_equal(found["raw"], raw)
        assert found["prediction"].shape == prediction.shape
        np.testing.assert_allclose(found["prediction"], prediction, rtol=1e-12)


@pytest.mark.parametrize(("name", "dtype"), [("categories", "float64"), ("zero is missing", "float32")])
def test_compiled_sums_are_lightgbms(name: str, dtype: str, tmp_path: Path) -> None:
    path, x = trained(name, tmp_path)
    rows = odd(x, dtype)
    results, _ = computed(FRONTEND.load(path, [InputSpec("data", x.shape, dtype)]), {"data": rows}, (3,))
    booster = lgb.Booster(model_file=path)
    np.testing.assert_array_equal(results[0]["raw"], booster.predict(rows, raw_score=True))
    np.testing.assert_allclose(results[0]["prediction"], booster.predict(rows), rtol=1e-12)


def test_report_and_peer(tmp_path: Path) -> None:
    path, x = trained("forest", tmp_path)
    report = FRONTEND.inspect(path, [])
    assert report.inputs[0].dtype == "float64"
    assert report.details["objective"].startswith("binary")
    assert report.details["trees"] == 6
    peer = FRONTEND.peer(path, [], 1)
    assert peer is not None
    answers = peer.run({"data": x})
    found = run(FRONTEND.load(path, [InputSpec("data", x.shape)]), {"data": x})
    for name in ("prediction", "raw"):
        np.testing.assert_allclose(answers[name], found[name], rtol=1e-12)


# ---------------------------------------------------------------- hostile files


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained("categories", tmp_path_factory.mktemp("lightgbm"))[0].read_text()


def refused(path: Path, text: str, words: str | None = None) -> None:
    path.write_text(text)
    with pytest.raises(WorkshopError, match=words) as caught:
        FRONTEND.load(path, [])
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize(
    ("pattern", "new", "words"),
    [
        (r"num_leaves=\d+", "num_leaves=1000000000", "leaves"),
        (r"num_leaves=\d+", "num_leaves=-3", "leaves"),
        (r"num_cat=\d+", "num_cat=1000000000", "sets"),
        (r"max_feature_idx=\d+", "max_feature_idx=1000000000000", "features"),
        (r"max_feature_idx=\d+", "max_feature_idx=0", "feature"),
        (r"num_tree_per_iteration=\d+", "num_tree_per_iteration=1000000000", "outputs"),
        (r"num_tree_per_iteration=\d+", "num_tree_per_iteration=7", "multiple"),
        (r"left_child=\S+", "left_child=0", "two ways"),
        (r"left_child=\S+", "left_child=99999", "child"),
        (r"left_child=\S+", "left_child=99999999999999999999", "list of numbers"),
        (r"right_child=\S+", "right_child=-99999", "child"),
        (r"split_feature=\S+", "split_feature=99", "feature"),
        (r"split_feature=\S+ ", "split_feature=", "numbers where"),
        (r"leaf_value=\S+", "leaf_value=nan", "finite"),
        (r"leaf_value=\S+", "leaf_value=x", "list of numbers"),
        (r"cat_boundaries=0 \d+", "cat_boundaries=0 1000000000", "outside"),
        (r"cat_boundaries=0 \d+", "cat_boundaries=0 -1", "outside"),
        (r"cat_threshold=\S+", "cat_threshold=99999999999", "32 bits"),
        (r"objective=\S+", "objective=own", "objective"),
        (r"is_linear=0", "is_linear=1", "linear"),
        (r"end of trees", "", "ends before"),
    ],
)
def test_what_does_not_hold_together_is_refused(
    pattern: str, new: str, words: str, tmp_path: Path, sound: str
) -> None:
    changed, count = re.subn(pattern, new, sound, count=1)
    assert count
    refused(tmp_path / "model.txt", changed, words)


def test_truncated_and_garbled_files_end_in_a_sentence(tmp_path: Path, sound: str) -> None:
    trees = sound.split("end of trees", maxsplit=1)[0]
    for share in np.linspace(0.01, 0.99, 15):
        refused(tmp_path / "model.txt", trees[: int(len(trees) * share)])
    rng = np.random.default_rng(0)
    path = tmp_path / "garbled.txt"
    stopped = 0
    for _ in range(60):
        letters = list(sound)
        for at in rng.integers(0, len(trees), 4):
            letters[at] = chr(rng.integers(32, 127))
        path.write_text("".join(letters))
        try:
            FRONTEND.load(path, [])
        except WorkshopError:
            stopped += 1
    assert stopped > 10
    path.write_bytes(b"tree\nnum_class=1\n\xff\xfe")
    with pytest.raises(WorkshopError, match="text"):
        FRONTEND.load(path, [])


def test_linear_trees_say_what_to_do(tmp_path: Path) -> None:
    x, y = data()
    made = lgb.Dataset(np.nan_to_num(x), y, params={"linear_tree": True, "verbose": -1})
    path = tmp_path / "linear.txt"
    lgb.train(BASE | {"objective": "regression", "linear_tree": True}, made, 2).save_model(path)
    with pytest.raises(UnsupportedError, match="linear_tree"):
        FRONTEND.load(path, [])
