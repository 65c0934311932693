"""Smaller forms of a graph, on a classifier trained on real data, evaluated by numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fleetui.workshop import optimise
from fleetui.workshop.errors import ModelError, ShapeError, WorkshopError
from fleetui.workshop.graph import ir, passes
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.optimise import Altered, compact
from fleetui.workshop.options import Optimise, Options, Weights
from fleetui.workshop.progress import Progress
from fleetui.workshop.prove import data
from fleetui.workshop.target import Target
from tests.helpers import digits

TARGET = Target("host", "this machine", "x86_64-linux-gnu", "x86-64-v3", vector=32)


def alter(graph: Graph, wish: Optimise, **options: object) -> Altered:
    plain = graph.copy()
    passes.simplify(plain)
    made = optimise.apply(plain, wish, TARGET, Options(**options), None, Progress())  # type: ignore[arg-type]
    made.graph.verify()
    return made


def weight_bytes(graph: Graph) -> int:
    return sum(value.nbytes for value in graph.constants())


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> str:
    x, _ = digits.digits()
    path = tmp_path_factory.mktemp("data") / "calibration.npz"
    np.savez(path, x=x[:400])
    return str(path)


def test_the_classifier_is_worth_testing_with() -> None:
    assert digits.accuracy(digits.classifier(16)) > 0.93


@pytest.mark.parametrize(
    ("weights", "share", "points"), [(Weights.FP16, 0.52, 0.5), (Weights.W8, 0.30, 1.0), (Weights.W4, 0.20, 4.0)]
)
def test_compact_weights_are_small_and_right(weights: Weights, share: float, points: float) -> None:
    graph = digits.classifier(16)
    before, bytes_before = digits.accuracy(graph), weight_bytes(graph)
    altered = alter(graph, Optimise(weights))
    assert weight_bytes(altered.graph) <= share * bytes_before
    assert digits.accuracy(altered.graph) >= before - points / 100
    assert weight_bytes(graph) == bytes_before  # the original is left alone


def test_arithmetic_in_8_bits_keeps_the_accuracy(calibration: str) -> None:
    graph = digits.classifier(16)
    altered = alter(graph, Optimise(Weights.INT8), calibration=calibration)
    assert altered.details["int8"]["layers"] == 3
    assert weight_bytes(altered.graph) <= 0.30 * weight_bytes(graph)
    assert digits.accuracy(altered.graph) >= digits.accuracy(graph) - 0.01
    sums = [n for n in altered.graph.nodes if n.op == "dense"]
    assert {n.output.dtype for n in sums} == {"int32"}
    assert {n.input(0).dtype for n in sums} == {"uint8"}  # nothing here is negative


def test_a_layer_that_loses_too_much_stays_float(tmp_path: Path) -> None:
    """One input is a thousand times the others: in one scale for all, the others vanish."""
    rng = np.random.default_rng(0)
    b = Builder("wild")
    x = b.input("x", (8, 64), "float32")
    scale = np.ones(64, np.float32)
    scale[:8] = 1e4
    wild = b.op("mul", x, b.constant(scale))
    w = rng.standard_normal((64, 32)).astype(np.float32)
    w[:8] *= 1e-4
    y = b.op("dense", wild, b.constant(w), None)
    z = b.op("dense", b.op("tanh", y), b.constant(rng.standard_normal((32, 16)).astype(np.float32)), None)
    b.output(z, "scores")
    graph = b.finish()
    np.savez(tmp_path / "c.npz", x=rng.standard_normal((64, 64)).astype(np.float32))
    altered = alter(graph, Optimise(Weights.INT8), calibration=str(tmp_path / "c.npz"))
    assert altered.details["int8"]["layers"] == 1
    assert len(altered.details["int8"]["float32"]) == 1
    assert any("stay float32" in warning for warning in altered.warnings)


def test_8_bits_without_calibration_say_what_to_do() -> None:
    with pytest.raises(WorkshopError, match="calibration") as caught:
        alter(digits.classifier(), Optimise(Weights.INT8))
    assert "--w8" in caught.value.fix


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_pruned_blocks_are_zero_and_the_rest_is_as_it_was(share: float) -> None:
    graph = digits.classifier(16)
    altered = alter(graph, Optimise(prune=share, block=8))
    found = altered.details["pruned"]
    assert abs(found["share"] - share) < 0.06
    kept = {tuple(v.shape): v.data for v in graph.constants() if v.rank == 2}
    for value in altered.graph.constants():
        if value.rank != 2:
            continue
        assert value.data is not None
        original = kept[value.shape]
        zero = value.data == 0
        assert np.array_equal(value.data[~zero], original[~zero])
    assert digits.accuracy(altered.graph) > (0.85 if share < 0.5 else 0.3)


def test_nothing_to_prune_is_said() -> None:
    b = Builder("tiny")
    b.output(b.op("relu", b.input("x", (1, 4), "float32")), "y")
    assert "no weights" in alter(b.finish(), Optimise(prune=0.5)).warnings[0]


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=9), elements=st.floats(-5, 5, width=32)
    ),
    st.data(),
)
def test_symmetric_codes_are_within_a_step_or_clipped_for_the_better(
    array: np.ndarray, draw: st.DataObject
) -> None:
    axis = draw.draw(st.integers(0, array.ndim - 1))
    codes, scale = compact.symmetric(array, axis, 127)
    shape = [1] * array.ndim
    shape[axis] = -1
    back = codes * scale.reshape(shape)
    peak = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis), keepdims=True)
    peak = np.where(peak > compact.LEAST, peak, 127.0)
    plain = np.rint(array / (peak / 127)) * (peak / 127)
    assert np.square(back - array).sum() <= np.square(plain - array).sum() + 1e-4
    assert codes.shape == array.shape
    assert np.all(np.isfinite(scale))
    assert np.all(scale > 0)


def test_blocked_codes_agree_with_the_primitive() -> None:
    rng = np.random.default_rng(5)
    w = rng.standard_normal((100, 7)).astype(np.float32)
    codes, scale = compact.blocked(w, 0)
    assert scale.shape == (4, 7)
    back = codes * np.repeat(scale, compact.BLOCK, axis=0)[:100]
    assert np.abs(back - w).max() < 0.35
    b = Builder("w4")
    b.output(b.op("dense", b.input("x", (1, 100), "float32"), b.constant(w), None), "y")
    altered = alter(b.finish(), Optimise(Weights.W4))
    x = rng.standard_normal((1, 100)).astype(np.float32)
    assert np.allclose(ir.run(altered.graph, {"x": x})["y"], x @ back, atol=1e-4)


# ------------------------------------------------------------ data for proofs


def graph_of(shape: tuple[int, ...] = (2, 3)) -> Graph:
    b = Builder("g")
    b.output(b.op("relu", b.input("x", shape, "float32")), "y")
    return b.finish()


def test_data_is_taken_by_name_or_alone_and_in_batches(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(15, dtype=np.float64).reshape(5, 3), labels=np.arange(5))
    found = data.load(tmp_path / "a.npz", graph_of(), labels=True)
    assert [batch["x"].shape for batch in found.batches()] == [(2, 3), (2, 3)]
    assert found.batches()[0]["x"].dtype == np.float32
    np.savez(tmp_path / "b.npz", anything=np.zeros((2, 3)))
    assert data.load(tmp_path / "b.npz", graph_of()).rows == 2


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({"x": np.zeros((4, 5))}, ShapeError, r"\[5\]"),
        ({"a": np.zeros((4, 3)), "b": np.zeros((4, 3))}, ModelError, "input x"),
        ({"x": np.zeros((1, 3))}, ShapeError, "fewer rows"),
        ({"x": np.zeros((4, 3)), "labels": np.zeros(3)}, ShapeError, "different numbers of rows"),
    ],
)
def test_data_that_does_not_fit(
    tmp_path: Path, arrays: dict[str, np.ndarray], error: type[Exception], words: str
) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(error, match=words):
        data.load(tmp_path / "d.npz", graph_of(), labels="labels" in arrays)


def test_data_that_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(b"not a zip")
    for name in ("d.npz", "missing.npz"):
        with pytest.raises(ModelError):
            data.load(tmp_path / name, graph_of())
    np.savez(tmp_path / "o.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelError, match="not a numpy archive"):
        data.load(tmp_path / "o.npz", graph_of())


def test_golden_vectors_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    pairs = [({"x": np.ones((1, 2), np.float32)}, {"a/b": np.zeros(3, np.int64)})]
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        data.write_golden(tmp_path / name, pairs)
        written.append((tmp_path / name / "golden.npz").read_bytes())
    assert written[0] == written[1]
    (back,) = data.read_golden(tmp_path / "one")
    assert np.array_equal(back[0]["x"], pairs[0][0]["x"])
    assert back[1]["a/b"].dtype == np.int64


def test_errors_are_relative_to_the_largest_number_and_know_nan() -> None:
    assert data.errors(np.array([1.0, 99.0]), np.array([1.0, 100.0])) == (0.01, 0.005)
    assert data.errors(np.array([np.nan, 1.0]), np.array([np.nan, 1.0])) == (0.0, 0.0)
    assert data.errors(np.array([np.nan]), np.array([1.0]))[0] == float("inf")
    assert data.errors(np.array([np.inf]), np.array([np.inf])) == (0.0, 0.0)
