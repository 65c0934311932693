"""Dense layers: every edge of the register blocks, every form of weights, chains, strides, other targets."""

import tempfile

import ml_dtypes
import numpy as np
import pytest

from fleetui.workshop import targets as targets_module
from fleetui.workshop.codegen import raw
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Node, Value
from fleetui.workshop.kernel import Placement
from fleetui.workshop.schedules import dense, fuse
from fleetui.workshop.schedules.rules import Context
from tests.helpers.kernels import check, random_feeds, using
from tests.helpers.products import targets

RULES = using(*dense.RULES)
SIZES = [
    (1, 1, 1), (1, 20, 64), (1, 64, 10), (1, 3, 5), (1, 130, 257), (1, 33, 128), (1, 512, 200), (2, 17, 16),
    (3, 40, 33), (4, 7, 100), (5, 64, 48), (7, 31, 31), (8, 16, 47), (13, 10, 96), (14, 64, 64), (29, 50, 70),
    (33, 5, 15), (64, 24, 130), (100, 12, 1), (1, 1000, 1), (200, 9, 40),
]  # fmt: skip


def layers(sizes: list[tuple[int, int, int]], dtype: str = "float32", seed: int = 0) -> Graph:
    dice = np.random.default_rng(seed)
    b = Builder("layers")
    for number, (rows, depth, columns) in enumerate(sizes):
        x = b.input(f"x{number}", (rows, depth), dtype)
        if "float" in dtype:
            w = dice.standard_normal((depth, columns)).astype(dtype)
            bias = dice.standard_normal(columns).astype(dtype)
        else:
            w = dice.integers(-20, 20, (depth, columns)).astype(dtype)
            bias = dice.integers(-20, 20, columns).astype("int32" if dtype in {"int8", "uint8"} else dtype)
        chain = bool(number % 2) and "float" in dtype
        name = f"y{number}"
        y = b.op("dense", x, b.constant(w), b.constant(bias) if number % 3 else None, name="" if chain else name)
        b.output(b.op("relu", y, name=name) if chain else y, name)
    return b.finish()


@pytest.mark.parametrize("target", ["host", "avx2", "sse", "scalar"])
def test_edges_of_the_register_blocks(target):
    if target not in targets():
        pytest.skip("not a relative of this machine")
    graph = layers(SIZES)
    check(graph, random_feeds(graph, 3), lower=RULES, target=targets()[target])


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "uint8", "int32", "int64"])
def test_other_dtypes(dtype):
    graph = layers([(1, 20, 64), (3, 40, 33), (9, 7, 18)], dtype)
    check(graph, random_feeds(graph, 4), lower=RULES)


def test_random_shapes():
    dice = np.random.default_rng(11)
    sizes = [(int(dice.integers(1, 40)), int(dice.integers(1, 90)), int(dice.integers(1, 150))) for _ in range(24)]
    graph = layers(sizes, seed=5)
    check(graph, random_feeds(graph, 5), lower=RULES)


def test_nothing_to_compute_and_nothing_to_add_up():
    b = Builder("empty")
    x = b.input("x", (0, 4), "float32")
    z = b.input("z", (3, 0), "float32")
    b.output(b.op("dense", x, b.constant(np.ones((4, 5), np.float32)), name="none"), "none")
    w, bias = b.constant(np.ones((0, 5), np.float32)), b.constant(np.ones(5, np.float32))
    b.output(b.op("dense", z, w, bias, name="bias"), "bias")
    graph = b.finish()
    check(graph, random_feeds(graph), lower=RULES)


def test_a_chain_of_rank_three_with_a_residual():
    dice = np.random.default_rng(1)
    b = Builder("chain")
    x, residual = b.input("x", (2, 9, 24), "float32"), b.input("residual", (2, 1, 40), "float32")
    y = b.op("dense", x, b.constant(dice.standard_normal((24, 40)).astype(np.float32)))
    y = b.op("add", y, b.constant(dice.standard_normal(40).astype(np.float32)))
    y = b.op("add", b.op("gelu", y, approximate=False), residual, name="y")
    b.output(y, "y")
    graph = b.finish()
    compiled = check(graph, random_feeds(graph, 2), lower=RULES)
    assert len(compiled.kernels) == 1


def test_rows_inside_a_concatenation_are_read_and_written_where_they_lie():
    dice = np.random.default_rng(1)
    b = Builder("strided")
    x = b.input("x", (3, 4, 20), "float32")
    y = b.op("dense", x, b.constant(dice.standard_normal((20, 24)).astype(np.float32)), name="y")
    b.output(y, "y")
    graph = b.finish()
    out = graph.outputs[0]
    wide_x, wide_y = Value("wide_x", (3, 4, 50), "float32"), Value("wide_y", (3, 7, 30), "float32")
    placements = {
        graph.inputs[0]: Placement(wide_x, 8, (200, 50, 1)),
        out: Placement(wide_y, 30, (210, 30, 1)),
    }
    check(graph, random_feeds(graph, 2), lower=RULES, placements=placements)


def coded(depth: int, columns: int, form: str, seed: int = 0) -> tuple[Value, Node]:
    """Weights in a small form, and the node that expands them."""
    dice = np.random.default_rng(seed)
    wide = Value(f"w.{form}", (depth, columns), "float32")
    if form in {"float16", "bfloat16"}:
        data = dice.standard_normal((depth, columns)).astype(
            np.float16 if form == "float16" else ml_dtypes.bfloat16
        )
        small = Value("half", data.shape, form, data)
        return wide, Node("cast", [small], [wide], {"to": "float32", "saturate": False})
    four, signed = "4" in form, not form.startswith("u")
    low, high = ((-8, 8) if signed else (0, 16)) if four else ((-128, 128) if signed else (0, 256))
    name = ("int" if signed else "uint") + ("4" if four else "8")
    kind = getattr(ml_dtypes, name) if four else np.dtype(name)
    codes = dice.integers(low, high, (depth, columns))
    blocked, zeroed = "block" in form, "zero" in form
    shape = (-(-depth // 32), columns) if blocked else (() if "tensor" in form else (columns,))
    scale = dice.uniform(0.01, 0.1, shape).astype(np.float32)
    zero = dice.integers(max(low, -8), min(high, 8), shape).astype(kind) if zeroed else None
    inputs: list[Value | None] = [
        Value("codes", codes.shape, name, codes.astype(kind)),
        Value("scale", scale.shape, "float32", scale),
        None if zero is None else Value("zero", zero.shape, name, zero),
    ]
    attrs = {"axis": 0 if blocked else 1, "dtype": "float32", "block": 32 if blocked else 0}
    return wide, Node("dequantize", inputs, [wide], attrs)


@pytest.mark.parametrize("target", ["host", "sse"])
@pytest.mark.parametrize(
    "form",
    [
        "float16",
        "bfloat16",
        "int8",
        "int8-tensor",
        "uint8-zero",
        "int4-block",
        "uint4-zero-block",
        "int4",
        "int8-block",
    ],
)
def test_small_weights_are_expanded_in_registers(form, target):
    for rows, depth, columns in [(1, 75, 130), (6, 64, 33)]:
        b = Builder("small")
        x = b.input("x", (rows, depth), "float32")
        wide, node = coded(depth, columns, form)
        b.graph.nodes.append(node)
        y = b.op("dense", x, wide, b.constant(np.ones(columns, np.float32)))
        b.output(b.op("relu", y, name="y"), "y")
        graph = b.finish()
        compiled = check(graph, random_feeds(graph, 1), lower=RULES, target=targets().get(target))
        assert len(compiled.kernels) == 1
        small = {"4": depth * columns // 2 + columns, "8": depth * columns, "1": depth * columns * 2}
        packed = next(
            a.buffer for a in compiled.kernels[0].args if getattr(a.buffer, "name", "").startswith(wide.name)
        )
        room = small["1" if "float" in form else form.removeprefix("u")[3]]
        assert packed.data.nbytes <= 2.0 * room  # codes fill whole vectors, and are never widened in memory


def test_weights_that_are_a_tensor_are_multiplied_as_one():
    b = Builder("runtime")
    x, w = b.input("x", (5, 20), "float32"), b.input("w", (20, 37), "float32")
    b.output(b.op("dense", x, w, b.constant(np.arange(37, dtype=np.float32)), name="y"), "y")
    graph = b.finish()
    check(graph, random_feeds(graph, 1), lower=RULES)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_bytes_are_added_up_in_fours(dtype):
    dice = np.random.default_rng(7)
    b = Builder("bytes")
    info = np.iinfo(dtype)
    feeds = {}
    for number, (rows, depth, columns) in enumerate([(1, 64, 40), (9, 30, 70), (20, 13, 16), (3, 4, 5)]):
        x = b.input(f"x{number}", (rows, depth), dtype)
        feeds[f"x{number}"] = dice.integers(info.min, info.max, (rows, depth), endpoint=True).astype(dtype)
        w = dice.integers(-128, 127, (depth, columns), endpoint=True).astype(np.int8)
        bias = dice.integers(-1000, 1000, columns).astype(np.int32) if number % 2 else None
        y = b.op("dense", x, b.constant(w), None if bias is None else b.constant(bias))
        b.output(b.op("cast", y, to="float32", saturate=False, name=f"y{number}"), f"y{number}")
    graph = b.finish()
    check(graph, feeds, lower=RULES)


def test_every_rule_compiles_for_arm():
    """What only other processors run is at least code for them: dot products of bytes, halves, all forms."""
    b = Builder("arm")
    x, z = b.input("x", (5, 64), "float32"), b.input("z", (3, 32), "uint8")
    wide, node = coded(64, 40, "float16")
    b.graph.nodes.append(node)
    b.output(b.op("dense", x, wide, name="y"), "y")
    b.output(b.op("dense", z, b.constant(np.ones((32, 24), np.int8)), name="v"), "v")
    graph = b.finish()
    target = targets_module.find("rpi5-64")
    kernels = [k for g in fuse.partition(graph, target) for k in RULES(g, Context(target, graph))]
    names = [f"k{i}" for i in range(len(kernels))]
    code = str(raw.lower(kernels, names, target))
    assert "sdot" in code
    with tempfile.TemporaryDirectory() as folder:
        raw.object_file(raw.lower(kernels, names, target), target, f"{folder}/k.o")
