"""XGBoost: models trained for real, read by our own parsers, margins bit for bit, hostile files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import ModelError, UnsupportedError, WorkshopError
from fleetui.workshop.frontends.xgboost import FRONTEND, ubj
from fleetui.workshop.graph.ir import Array, run
from fleetui.workshop.options import InputSpec
from tests.helpers.trees import computed

xgb = pytest.importorskip("xgboost")
ROWS, FEATURES = 300, 6


def data(seed: int = 0) -> tuple[Array, Array]:
    """Features with gaps, the last one a category; three classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    x[:, -1] = rng.integers(0, 12, ROWS)
    y = (x[:, 0] > 0).astype(int) + (x[:, -1] % 3 == 1)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x, y


KINDS = ["q"] * (FEATURES - 1) + ["c"]
BASE = {"nthread": 1, "max_depth": 4, "seed": 1}
SPECS: dict[str, tuple[dict[str, Any], int]] = {
    "squared error": ({"objective": "reg:squarederror"}, 9),
    "logistic": ({"objective": "binary:logistic", "max_depth": 6}, 11),
    "raw logistic": ({"objective": "binary:logitraw"}, 5),
    "hinge": ({"objective": "binary:hinge"}, 5),
    "poisson": ({"objective": "count:poisson"}, 5),
    "gamma": ({"objective": "reg:gamma"}, 5),
    "tweedie": ({"objective": "reg:tweedie"}, 5),
    "absolute error": ({"objective": "reg:absoluteerror"}, 5),
    "softprob": ({"objective": "multi:softprob", "num_class": 3}, 5),
    "softmax": ({"objective": "multi:softmax", "num_class": 3}, 5),
    "categories": ({"objective": "multi:softprob", "num_class": 3, "max_cat_to_onehot": 4}, 6),
    "one-hot categories": ({"objective": "reg:squarederror", "max_cat_to_onehot": 40}, 5),
    "dart": ({"booster": "dart", "rate_drop": 0.5, "objective": "binary:logistic"}, 9),
    "forest": ({"num_parallel_tree": 4, "subsample": 0.5, "objective": "reg:squarederror"}, 2),
    "one tree": ({"objective": "reg:squarederror"}, 1),
    "single leaves": ({"objective": "reg:squarederror", "gamma": 1e9}, 3),
    "base score": ({"objective": "binary:logistic", "base_score": 0.3}, 4),
    "deep": ({"objective": "reg:squarederror", "max_depth": 20, "min_child_weight": 0, "lambda": 0}, 3),
    "vectors": ({"multi_strategy": "multi_output_tree", "tree_method": "hist"}, 4),
    "linear": ({"booster": "gblinear", "objective": "count:poisson"}, 5),
    "linear classes": ({"booster": "gblinear", "objective": "multi:softprob", "num_class": 3}, 5),
}


def trained(name: str, folder: Path, ext: str) -> tuple[Path, Array, Any]:
    spec, rounds = SPECS[name]
    x, y = data()
    kinds = KINDS if "categories" in name else None
    target: Array = (y > 0).astype(int) if "class" not in str(spec) else y
    target = target + 0.5 if name in {"gamma", "tweedie"} else target
    if name == "vectors":
        target = np.stack([y, y * 2, x[:, 1] > 0], 1)
    params = {
        key: value for key, value in (BASE | spec).items() if "gblinear" not in str(spec) or key != "max_depth"
    }
    matrix = xgb.DMatrix(x, target, feature_types=kinds, enable_categorical=True)
    booster = xgb.train(params, matrix, rounds)
    path = folder / f"model.{ext}"
    booster.save_model(path)
    return path, x, xgb.DMatrix(x, feature_types=kinds, enable_categorical=True)


@pytest.mark.parametrize("name", SPECS)
def test_margins_are_xgboosts(name: str, tmp_path: Path) -> None:
    for ext in ("json", "ubj"):
        path, x, matrix = trained(name, tmp_path, ext)
        assert FRONTEND.sniff(path.read_bytes()[: 64 << 10], path)
        graph = FRONTEND.load(path, [InputSpec("data", x.shape)])
        graph.verify()
        found = run(graph, {"data": x})
        booster = xgb.Booster(model_file=path)
        margin, prediction = booster.predict(matrix, output_margin=True), booster.predict(matrix)
        assert found["margin"].shape == margin.shape
        assert found["prediction"].shape == prediction.shape
        if "linear" in name:
            np.testing.assert_allclose(found["margin"], margin, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(found["margin"], margin)
        np.testing.assert_allclose(found["prediction"], prediction, rtol=1e-6)


@pytest.mark.parametrize("name", ["logistic", "categories", "deep", "vectors"])
def test_compiled_margins_are_xgboosts(name: str, tmp_path: Path) -> None:
    path, x, matrix = trained(name, tmp_path, "ubj")
    results, _ = computed(FRONTEND.load(path, [InputSpec("data", x.shape)]), {"data": x}, (3,))
    booster = xgb.Booster(model_file=path)
    np.testing.assert_array_equal(results[0]["margin"], booster.predict(matrix, output_margin=True))
    np.testing.assert_allclose(results[0]["prediction"], booster.predict(matrix), rtol=2e-6)


def test_report_and_peer(tmp_path: Path) -> None:
    path, x, matrix = trained("logistic", tmp_path, "json")
    report = FRONTEND.inspect(path, [])
    assert report.inputs[0].shape == ("rows", FEATURES)
    assert report.details["trees"] == 11
    assert report.details["objective"] == "binary:logistic"
    assert [port.name for port in report.outputs] == ["margin", "prediction"]
    assert report.parameters > 0
    assert report.flops > 0
    peer = FRONTEND.peer(path, [], 1)
    assert peer is not None
    answers = peer.run({"data": x})
    found = run(FRONTEND.load(path, [InputSpec("data", x.shape)]), {"data": x})
    np.testing.assert_allclose(answers["prediction"], found["prediction"], rtol=1e-6)
    np.testing.assert_array_equal(answers["margin"], found["margin"])
    np.testing.assert_allclose(answers["prediction"], xgb.Booster(model_file=path).predict(matrix))


def test_older_files_have_one_base_score_and_no_categories(tmp_path: Path) -> None:
    path, x, _ = trained("softprob", tmp_path, "json")
    document = json.loads(path.read_text())
    learner = document["learner"]
    scores = json.loads(learner["learner_model_param"]["base_score"])
    assert len(scores) == 3
    learner["learner_model_param"]["base_score"] = "5E-1"
    del learner["learner_model_param"]["num_target"]
    for tree in learner["gradient_booster"]["model"]["trees"]:
        for key in ("categories", "categories_nodes", "categories_segments", "categories_sizes", "split_type"):
            del tree[key]
    document["version"] = [1, 2, 0]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(document))
    spec = [InputSpec("data", x.shape)]
    before = run(FRONTEND.load(path, spec), {"data": x})["margin"]
    after = run(FRONTEND.load(old, spec), {"data": x})["margin"]
    np.testing.assert_allclose(after - before, np.broadcast_to(0.5 - np.array(scores), after.shape), atol=1e-5)


# ---------------------------------------------------------------- hostile files


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("xgboost")
    data_ = trained("categories", folder, "ubj")[0].read_bytes()
    return data_, json.loads(trained("categories", folder, "json")[0].read_text())


def refused(path: Path, data_: bytes, words: str | None = None) -> None:
    path.write_bytes(data_)
    with pytest.raises(WorkshopError, match=words) as caught:
        FRONTEND.load(path, [])
    assert "\n" not in caught.value.sentence


def test_truncated_files_end_in_a_sentence(tmp_path: Path, sound: tuple[bytes, dict[str, Any]]) -> None:
    whole, document = sound
    text = json.dumps(document).encode()
    for share in np.linspace(0.001, 0.999, 20):
        refused(tmp_path / "cut.ubj", whole[: int(len(whole) * share)])
        refused(tmp_path / "cut.json", text[: int(len(text) * share)])


def test_files_with_wrong_bytes_never_crash(tmp_path: Path, sound: tuple[bytes, dict[str, Any]]) -> None:
    whole, _ = sound
    rng = np.random.default_rng(0)
    path = tmp_path / "wrong.ubj"
    stopped = 0
    for _ in range(60):
        broken = bytearray(whole)
        for at in rng.integers(0, len(broken), 5):
            broken[at] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            FRONTEND.load(path, [])
        except WorkshopError:
            stopped += 1
    assert stopped > 10


def tree_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["learner"]["gradient_booster"]["model"]["trees"][0]
    return found


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("left_children", lambda old: [0, *old[1:]], "two ways"),
        ("left_children", lambda old: [10**6, *old[1:]], "child"),
        ("left_children", lambda old: [10**30, *old[1:]], "list of numbers|damaged|read"),
        ("left_children", lambda old: old[:-1], "nodes|lengths"),
        ("split_indices", lambda old: [FEATURES, *old[1:]], "feature"),
        ("split_conditions", lambda old: ["a", *old[1:]], "list of numbers"),
        ("categories_segments", lambda old: [10**9 for _ in old], "categories"),
        ("categories", lambda old: [10**9 for _ in old], "categories"),
        ("categories", lambda old: [-1 for _ in old], "categor"),
        ("split_type", lambda old: [0 if v else 1 for v in old], "categories"),
        ("tree_param", lambda old: {**old, "num_nodes": "1000000000"}, "nodes"),
        ("tree_param", lambda old: {**old, "size_leaf_vector": "1000000000"}, "numbers|outputs"),
    ],
)
def test_what_does_not_hold_together_is_refused(
    key: str, value: Any, words: str, tmp_path: Path, sound: tuple[bytes, dict[str, Any]]
) -> None:
    document = json.loads(json.dumps(sound[1]))
    trees = document["learner"]["gradient_booster"]["model"]["trees"]
    tree = next(t for t in trees if t["categories"])
    tree[key] = value(tree[key])
    refused(tmp_path / "model.json", json.dumps(document).encode(), words)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("learner_model_param", "num_feature"), "1000000000", "features"),
        (("learner_model_param", "num_class"), "1000000000", "outputs"),
        (("learner_model_param", "base_score"), "[1,2,3,4,5]", "base scores"),
        (("learner_model_param", "base_score"), "NaN", "finite"),
        (("learner_model_param",), [], "learner_model_param"),
        (("objective", "name"), "own:objective", "objective"),
        (("gradient_booster", "name"), "gbdeep", "booster"),
    ],
)
def test_heads_that_lie_are_refused(
    path: tuple[str, ...], value: Any, words: str, tmp_path: Path, sound: tuple[bytes, dict[str, Any]]
) -> None:
    document = json.loads(json.dumps(sound[1]))
    where = document["learner"]
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    refused(tmp_path / "model.json", json.dumps(document).encode(), words)


def test_bombs_of_ubjson_are_refused() -> None:
    size = (10**9).to_bytes(8, "big")
    for bomb in (
        b"[#L" + size,
        b"[$d#L" + size,
        b"[$Z#L" + size,
        b"[$[#L" + size,
        b"{#L" + size,
        b"SL" + size,
        b"[#i\xff",
        b"[" * 100_000,
        b"{i\x01a" * 5000,
        b"Q",
        b"[$d",
        b"",
    ):
        with pytest.raises(ModelError):
            ubj.parse(bomb)


def test_ubjson_by_hand() -> None:
    text = (
        b"{i\x01ai\x05i\x01b[$d#i\x02\x3f\x80\x00\x00\xc0\x00\x00\x00i\x01c[TFZ]i\x01dSi\x02hii\x01e[#i\x02CxU\xff}"
    )
    found = ubj.parse(text)
    assert found["a"] == 5
    assert found["b"].tolist() == [1.0, -2.0]
    assert (found["c"], found["d"], found["e"]) == ([True, False, None], "hi", ["x", 255])


def test_the_old_binary_format_is_told_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "old.model"
    path.write_bytes(b"binf" + bytes(200))
    assert FRONTEND.sniff(path.read_bytes(), path)
    with pytest.raises(UnsupportedError, match="save_model"):
        FRONTEND.load(path, [])


def test_other_files_are_not_ours(tmp_path: Path) -> None:
    for head in (b"", b"{", b'{"format": "x"}', b"\x08\x07\x12", b"tree\nversion=v4\n", b"PK\x03\x04", b"[]"):
        assert not FRONTEND.sniff(head, tmp_path / "x")
