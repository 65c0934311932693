"""All primitives but the elementwise ones: against PyTorch where it has the operator, or against small answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.graph.ops import evaluate, flops, infer

RNG = np.random.default_rng(11)


def random(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def compute_all(op: str, *arrays: Array | None, constant: bool = False, **attrs: Any) -> list[Array]:
    b = Builder("one")
    values = [
        None if a is None else (b.constant(a) if constant and i else b.input(f"x{i}", a.shape, str(a.dtype)))
        for i, a in enumerate(arrays)
    ]
    types = infer(op, values, attrs)
    outs = evaluate(op, list(arrays), attrs)
    assert [(out.shape, str(out.dtype)) for out in outs] == types
    assert flops(op, values, types, attrs) >= 0
    return outs


def compute(op: str, *arrays: Array | None, **attrs: Any) -> Array:
    (out,) = compute_all(op, *arrays, **attrs)
    return out


def refused(op: str, *arrays: Array | None, **attrs: Any) -> None:
    with pytest.raises(ShapeError):
        compute_all(op, *arrays, **attrs)


def last(x: Array) -> Array:
    return np.moveaxis(x, 1, -1)


def close(have: Array, want: Any, tolerance: float = 3e-5) -> None:
    want = np.asarray(want.detach().numpy() if hasattr(want, "detach") else want)
    assert have.shape == want.shape
    np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- convolutions


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("channels", "outputs", "groups"), [(3, 8, 1), (20, 6, 1), (6, 6, 6), (6, 12, 6), (8, 12, 2)]
)
def test_convolutions(rank: int, channels: int, outputs: int, groups: int) -> None:
    import torch
    import torch.nn.functional as F  # noqa: N812 - its usual name

    forward = [F.conv1d, F.conv2d, F.conv3d][rank - 1]
    backward = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][rank - 1]
    space = (9, 8, 7)[:rank]
    x, bias = random(2, channels, *space), random(outputs)
    for kernel, stride, pad, dilation in ((3, 1, 1, 1), (3, 2, 0, 2), (1, 1, 0, 1), (2, 3, 1, 1)):
        shared = {
            "strides": (stride,) * rank,
            "pads": ((pad, pad),) * rank,
            "dilations": (dilation,) * rank,
            "groups": groups,
        }
        w = random(outputs, channels // groups, *[kernel] * rank)
        want = forward(*map(torch.from_numpy, (x, w, bias)), stride, pad, dilation, groups)
        have = compute("conv", last(x), np.moveaxis(w, (0, 1), (-1, -2)), bias, **shared)
        close(have, last(want.numpy()), 1e-4)
        w = random(channels, outputs // groups, *[kernel] * rank)
        extra = 1 if stride > 1 else 0
        want = backward(*map(torch.from_numpy, (x, w, bias)), stride, pad, extra, groups, dilation)
        turned = np.moveaxis(w, (0, 1), (-2, -1))
        have = compute("conv_transpose", last(x), turned, bias, output_padding=(extra,) * rank, **shared)
        close(have, last(want.numpy()), 1e-4)


def test_convolution_of_bytes_is_exact_and_uneven_pads_count() -> None:
    x = RNG.integers(-128, 128, (2, 7, 6, 20)).astype(np.int8)
    w = RNG.integers(0, 256, (3, 2, 10, 4)).astype(np.uint8)
    bias = RNG.integers(-1000, 1000, 4).astype(np.int32)
    attrs: dict[str, Any] = {"strides": (2, 1), "pads": ((1, 0), (0, 3)), "dilations": (1, 2), "groups": 2}
    have = compute("conv", x, w, bias, **attrs)
    want = compute("conv", x.astype(np.float64), w.astype(np.float64), bias.astype(np.float64), **attrs)
    assert have.dtype == np.int32
    assert np.array_equal(have, want)
    refused("conv", x, w.astype(np.float32), None, **attrs)
    refused("conv", x, w[..., :3], None, **attrs)
    refused("conv", x[:, :1], w, None, **{**attrs, "pads": ((0, 0), (0, 0))})


# ---------------------------------------------------------------- windows


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("pad", [0, 1])
def test_pools(ceil: bool, include: bool, pad: int) -> None:
    import torch
    import torch.nn.functional as F  # noqa: N812 - its usual name

    x = random(2, 5, 11, 10)
    t = torch.from_numpy(x)
    mean = F.avg_pool2d(t, 3, 2, pad, ceil, include)
    attrs: dict[str, Any] = {
        "kernel": (3, 3),
        "strides": (2, 2),
        "pads": ((pad, pad), (pad, pad)),
        "dilations": (1, 1),
        "count_include_pad": include,
        "out": tuple(mean.shape[2:]),
    }
    close(compute("pool", last(x), kind="avg", **attrs), last(mean.numpy()))
    top, places = F.max_pool2d(t, 3, 2, pad, 1, ceil, return_indices=True)
    values, at = compute_all("pool_indices", last(x), kind="max", storage_order=0, **attrs)
    close(values, last(top.numpy()))
    plane = np.arange(10).reshape(2, 5, 1, 1) * 110
    assert np.array_equal(np.moveaxis(at, -1, 1) - plane, places.numpy())
    close(compute("pool", last(x), kind="max", **attrs), values)
    _, columns = compute_all("pool_indices", last(x), kind="max", storage_order=1, **attrs)
    inner = np.moveaxis(columns, -1, 1) - plane
    assert np.array_equal(inner % 11 * 10 + inner // 11, places.numpy())
    if not ceil and not pad:
        close(compute("pool", last(x), kind="l2", **attrs), last(F.lp_pool2d(t, 2, 3, 2).numpy()), 1e-4)
        third = np.abs(x)
        close(
            compute("pool", last(third), kind="lp", p=3, **attrs),
            last(F.lp_pool2d(torch.from_numpy(third), 3, 3, 2).numpy()),
            1e-4,
        )
        back = compute("unpool", values, at, out=(11, 10))
        close(back, last(F.max_unpool2d(top, places, 3, 2, 0, (11, 10)).numpy()))


def test_pools_of_integers_and_of_one_and_three_dimensions() -> None:
    x = np.array([[[-5], [3], [-7], [-8]]], np.int8)
    attrs: dict[str, Any] = {"kernel": (2,), "strides": (2,), "pads": ((1, 1),), "dilations": (1,), "out": (3,)}
    attrs["count_include_pad"] = False
    assert compute("pool", x, kind="max", **attrs).ravel().tolist() == [-5, 3, -8]
    refused("pool", x, kind="avg", **attrs)
    refused("pool", x, kind="max", **{**attrs, "out": (5,)})
    cube = random(1, 4, 4, 4, 2)
    attrs = dict.fromkeys(("kernel", "strides", "out"), (2, 2, 2))
    attrs |= {"pads": ((0, 0),) * 3, "dilations": (1, 1, 1), "count_include_pad": False}
    want = cube.reshape(1, 2, 2, 2, 2, 2, 2, 2).mean((2, 4, 6))
    close(compute("pool", cube, kind="avg", **attrs), want)


# ---------------------------------------------------------------- products, attention, recurrent


def test_products() -> None:
    a, b = random(3, 1, 4, 5), random(2, 5, 6)
    close(compute("matmul", a, b), a @ b)
    close(compute("matmul", a.swapaxes(-1, -2), b, transpose_a=True), a @ b)
    close(compute("matmul", a, b.swapaxes(-1, -2), transpose_b=True), a @ b)
    x = RNG.integers(-128, 128, (3, 7)).astype(np.int8)
    y = RNG.integers(0, 256, (7, 2)).astype(np.uint8)
    assert np.array_equal(compute("matmul", x, y), x.astype(np.int64) @ y)
    assert np.array_equal(compute("dense", x, y, np.array([1, 2], np.int32)), x.astype(np.int64) @ y + [1, 2])
    close(compute("dense", random(5), random(5, 2), random(2)).reshape(1, 2), np.zeros((1, 2)), 20)
    half = a.astype(np.float16)
    close(
        compute("matmul", half, b.astype(np.float16)),
        (half.astype(np.float32) @ b.astype(np.float16).astype(np.float32)).astype(np.float16),
        0,
    )
    refused("matmul", a, a)
    refused("dense", a, b)


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal: bool) -> None:
    import torch
    import torch.nn.functional as F  # noqa: N812 - its usual name

    q, k, v = random(2, 4, 5, 8), random(2, 2, 7, 8), random(2, 2, 7, 6)
    tq, tk, tv = torch.from_numpy(q), torch.from_numpy(k), torch.from_numpy(v)
    plain: dict[str, Any] = {"scale": 0.3, "causal": causal, "softcap": 0.0}
    want = F.scaled_dot_product_attention(tq, tk, tv, is_causal=causal, scale=0.3, enable_gqa=True)
    close(compute("attention", q, k, v, None, **plain), want)
    if not causal:
        for mask in (random(1, 1, 5, 7), np.tri(5, 7) > 0):
            want = F.scaled_dot_product_attention(
                tq, tk, tv, attn_mask=torch.from_numpy(mask), scale=0.3, enable_gqa=True
            )
            close(compute("attention", q, k, v, mask, **plain), want)
        empty = np.ones((5, 7), bool)
        empty[2] = False
        assert not compute("attention", q, k, v, empty, **plain)[:, :, 2].any()
        k1, v1 = np.repeat(k, 2, 1), np.repeat(v, 2, 1)
        scores = 2 * np.tanh(q @ k1.swapaxes(-1, -2) * 0.3 / 2)
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        close(compute("attention", q, k, v, None, scale=0.3, causal=False, softcap=2.0), weights @ v1)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_recurrent(kind: str, both: bool) -> None:
    import torch

    hidden, width, steps, batch, directions = 5, 4, 6, 3, 2 if both else 1
    order = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}[kind]
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[kind](
        width, hidden, bidirectional=both
    )
    x, h0, c0 = random(steps, batch, width), random(directions, batch, hidden), random(directions, batch, hidden)

    def stacked(*names: str) -> Array:
        parts = []
        for direction in range(directions):
            found = [getattr(layer, name + ("_reverse" if direction else "")).detach().numpy() for name in names]
            sorted_gates = [np.concatenate([np.split(a, len(order))[i] for i in order]) for a in found]
            parts.append(np.concatenate(sorted_gates))
        return np.stack(parts)

    start = torch.from_numpy(h0)
    lengths = np.array([6, 4, 2])
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.from_numpy(x), torch.from_numpy(lengths))
    out, state = layer(packed, (start, torch.from_numpy(c0)) if kind == "lstm" else start)
    out, _ = torch.nn.utils.rnn.pad_packed_sequence(out)
    functions = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",)}[
        kind
    ] * directions
    extra = {"lstm": {"input_forget": False}, "gru": {"linear_before_reset": True}, "rnn": {}}[kind]
    inputs = [x, stacked("weight_ih_l0"), stacked("weight_hh_l0"), stacked("bias_ih_l0", "bias_hh_l0"), lengths, h0]
    outs = compute_all(
        kind,
        *inputs,
        *([c0] if kind == "lstm" else []),
        direction="bidirectional" if both else "forward",
        activations=functions,
        alphas=(0.0,) * len(functions),
        betas=(0.0,) * len(functions),
        clip=None,
        **extra,
    )
    close(outs[0].transpose(0, 2, 1, 3).reshape(steps, batch, -1), out)
    for have, want in zip(outs[1:], state if kind == "lstm" else (state,), strict=True):
        close(have, want)


# ---------------------------------------------------------------- reductions


def test_reductions() -> None:
    x = random(2, 3, 4)
    for kind, function in (("sum", np.sum), ("mean", np.mean), ("max", np.max), ("min", np.min), ("prod", np.prod)):
        for axes in ((), (1,), (0, 2), (0, 1, 2)):
            close(compute("reduce", x, kind=kind, axes=axes, keepdims=True), function(x, axes, keepdims=True))
    whole = np.array([[-7, 2], [-2, 100]], np.int8)
    assert compute("reduce", whole, kind="mean", axes=(1,), keepdims=False).tolist() == [-2, 49]
    assert compute("reduce", whole, kind="sum", axes=(0, 1), keepdims=False) == 93
    none = np.zeros((2, 0), np.float32)
    assert compute("reduce", none, kind="max", axes=(1,), keepdims=False).tolist() == [-np.inf] * 2
    assert np.isnan(compute("reduce", none, kind="mean", axes=(1,), keepdims=False)).all()
    assert compute("reduce", np.zeros((0,), np.int16), kind="min", axes=(0,), keepdims=False) == 32767
    assert compute("reduce", np.array([True, False]), kind="max", axes=(0,), keepdims=False)
    refused("reduce", x, kind="sum", axes=(2, 1), keepdims=False)
    refused("reduce", x, kind="sum", axes=(3,), keepdims=False)


def test_ties_and_order() -> None:
    x = np.array([3.0, 1.0, 3.0, np.nan, 1.0], np.float32)[None]
    tied = np.array([[3, 1, 3, 2, 1]], np.int32)
    assert compute("argmax", tied, axis=1, keepdims=False, last=False) == 0
    assert compute("argmax", tied, axis=1, keepdims=True, last=True).tolist() == [[2]]
    assert compute("argmin", tied, axis=1, keepdims=False, last=True) == 4
    values, at = compute_all("topk", x, k=3, axis=1, largest=True, sorted=True)
    assert at.tolist() == [[3, 0, 2]]
    assert np.isnan(values[0, 0])
    assert compute_all("topk", x, k=3, axis=1, largest=False, sorted=True)[1].tolist() == [[1, 4, 0]]
    assert compute_all("sort", tied, axis=1, descending=True)[1].tolist() == [[0, 2, 3, 1, 4]]
    assert compute_all("sort", tied, axis=1, descending=False)[1].tolist() == [[1, 4, 3, 0, 2]]
    assert compute("hardmax", tied.astype(np.float32), axis=1).tolist() == [[1, 0, 0, 0, 0]]
    refused("topk", x, k=6, axis=1, largest=True, sorted=True)


def test_running_sums() -> None:
    x = np.array([1, 2, 3, 4], np.int32)
    sums = {
        (False, False): [1, 3, 6, 10],
        (True, False): [0, 1, 3, 6],
        (False, True): [10, 9, 7, 4],
        (True, True): [9, 7, 4, 0],
    }
    for (exclusive, reverse), want in sums.items():
        assert compute("cumsum", x, axis=0, exclusive=exclusive, reverse=reverse).tolist() == want
    assert compute("cumprod", x, axis=0, exclusive=True, reverse=False).tolist() == [1, 1, 2, 6]


def test_norms_and_softmax() -> None:
    import torch
    import torch.nn.functional as F  # noqa: N812 - its usual name

    x, scale, bias = random(2, 3, 4, 5) * 30, random(4, 5), random(4, 5)
    t = torch.from_numpy(x)
    want = F.layer_norm(t, (4, 5), torch.from_numpy(scale), torch.from_numpy(bias), 1e-3)
    close(compute("layer_norm", x, scale, bias, axis=2, eps=1e-3), want)
    close(compute("rms_norm", x, scale, axis=2, eps=1e-3), F.rms_norm(t, (4, 5), torch.from_numpy(scale), 1e-3))
    close(compute("softmax", x, axis=1), F.softmax(t, 1))
    close(compute("log_softmax", x, axis=1), F.log_softmax(t, 1), 1e-4)
    close(
        compute("lrn", last(x), size=3, alpha=0.1, beta=0.75, bias=2.0),
        last(F.local_response_norm(t, 3, 0.1, 0.75, 2.0).numpy()),
    )
    assert compute("softmax", np.zeros((2, 0), np.float32), axis=1).shape == (2, 0)
    refused("layer_norm", x, scale[0], None, axis=2, eps=1e-3)


# ---------------------------------------------------------------- moving


def test_slices_and_pads() -> None:
    x = np.arange(12).reshape(3, 4)
    assert np.array_equal(compute("slice", x, starts=(2, 3), stops=(-1, 0), steps=(-1, -2)), x[::-1, 3:0:-2])
    assert compute("slice", x, starts=(1, 2), stops=(1, 4), steps=(1, 1)).shape == (0, 2)
    refused("slice", x, starts=(0, 0), stops=(4, 4), steps=(1, 1))
    refused("slice", x, starts=(0, 0), stops=(3, 4), steps=(0, 1))
    for mode in ("reflect", "edge", "wrap"):
        have = compute("pad", x, before=(5, 1), after=(0, 9), mode=mode)
        assert np.array_equal(have, np.pad(x, ((5, 0), (1, 9)), mode=mode)), mode
    assert compute("pad", x, before=(0, 1), after=(0, 0), mode="constant", value=7)[:, 0].tolist() == [7, 7, 7]
    assert compute("pad", x[:1], before=(2, 0), after=(1, 0), mode="reflect").tolist() == [[0, 1, 2, 3]] * 4
    refused("pad", x, before=(-1, 0), after=(0, 0), mode="constant")
    refused("pad", x[:0], before=(1, 0), after=(0, 0), mode="edge")


def test_gathers_stay_within_their_tensor() -> None:
    x = np.arange(12).reshape(3, 4)
    at = np.array([[0, -1], [9, -9]], np.int32)
    assert compute("gather", x, at, axis=0)[..., 0].tolist() == [[0, 8], [8, 0]]
    assert compute("gather", x, np.array(2), axis=1).tolist() == [2, 6, 10]
    assert compute("gather_elements", x, np.array([[0, -1, 7]]), axis=1).tolist() == [[0, 3, 3]]
    assert compute("gather_nd", x, np.array([[2, -1], [0, 99]]), batch_dims=0).tolist() == [11, 3]
    assert compute("gather_nd", x, np.array([[1], [0], [3]]), batch_dims=1).tolist() == [1, 4, 11]
    refused("gather", x[:0], at, axis=0)
    refused("gather", x, at.astype(np.float32), axis=0)


def test_scatters_leave_out_what_falls_outside() -> None:
    x = np.zeros((3, 3), np.float32)
    at, updates = np.array([[0, -1, 5]]), np.array([[1.0, 2.0, 3.0]], np.float32)
    assert compute("scatter_elements", x, at, updates, axis=0, reduction="none").tolist() == [
        [1, 0, 0],
        [0, 0, 0],
        [0, 2, 0],
    ]
    twice = np.array([[1, 1, 1]])
    assert compute("scatter_elements", x, twice, updates, axis=1, reduction="add")[0].tolist() == [0, 6, 0]
    assert compute("scatter_elements", x, twice, updates, axis=1, reduction="none")[0].tolist() == [0, 3, 0]
    assert compute("scatter_elements", x + 4, twice, updates, axis=1, reduction="max")[0].tolist() == [4, 4, 4]
    rows = np.stack([updates[0], updates[0]])
    assert compute("scatter_nd", x + 1, np.array([[0], [0]]), rows, reduction="mul")[0].tolist() == [1, 4, 9]
    assert compute("scatter_nd", x, np.array([[7], [-1]]), rows, reduction="none")[:, 2].tolist() == [0, 0, 3]


def test_one_hot_and_tile_and_interp() -> None:
    assert compute("one_hot", np.array([0, -1, 9]), depth=3, axis=0, on=5, off=-1, dtype="int8").T.tolist() == [
        [5, -1, -1],
        [-1, -1, 5],
        [-1, -1, -1],
    ]
    assert compute("tile", np.array([[1, 2]]), repeats=(2, 2)).tolist() == [[1, 2, 1, 2]] * 2
    x = random(2, 4, 3)
    index = np.array([[0, 1], [1, 2], [3, 3]], np.int32)
    weight = np.array([[0.5, 0.5], [0.25, 0.75], [1, 0]], np.float32)
    (have,) = compute_all("interp", x, index, weight, constant=True, axis=1)
    want = np.stack([(x[:, i] * w[:, None]).sum(1) for i, w in zip(index, weight, strict=True)], 1)
    close(have, want)
    with pytest.raises(ShapeError, match="outside"):
        compute_all("interp", x, index + 1, weight, constant=True, axis=1)


def test_concat_reshape_and_their_refusals() -> None:
    x = random(2, 3)
    assert compute("concat", x, x, x, axis=1).shape == (2, 9)
    refused("concat", x, x.T, axis=0)
    refused("reshape", x, shape=(4,))
    refused("transpose", x, perm=(0, 0))
    refused("broadcast_to", x, shape=(2, 4))


# ---------------------------------------------------------------- narrow numbers


def test_quantising() -> None:
    x = np.array([[-10.0, 0.3125, 0.4375], [0.0625, 300.0, np.nan]], np.float32)
    scale, zero = np.array(0.125, np.float32), np.array(5, np.int8)
    have = compute("quantize", x, scale, zero, axis=0, dtype="int8")
    assert have.tolist() == [[-75, 7, 9], [5, 127, 5]]  # half to even, then the zero point
    close(compute("dequantize", have[:, :1], scale, zero, axis=0, dtype="float32"), [[-10.0], [0.0]])
    rows = compute("quantize", x[:, :2], np.array([1, 10], np.float32), None, axis=0, dtype="uint4")
    assert rows.astype(int).tolist() == [[0, 0], [0, 15]]
    codes = np.arange(10, dtype=np.int8).reshape(2, 5)
    scales = np.array([[1, 10, 100], [2, 20, 200]], np.float32)
    blocks = compute("dequantize", codes, scales, None, axis=1, dtype="float32", block=2)
    assert blocks.tolist() == [[0, 1, 20, 30, 400], [10, 12, 140, 160, 1800]]
    refused("dequantize", codes, scales, None, axis=0, dtype="float32", block=2)
    refused("quantize", codes, scale, None, axis=0, dtype="int8")


def test_an_extern_operator_says_what_it_makes() -> None:
    attrs: dict[str, Any] = {"build": None, "shapes": ((2,),), "dtypes": ("float32",), "flops": 3}
    assert compute("extern", random(2), evaluate=lambda x: [x * 0], **attrs).tolist() == [0, 0]
    with pytest.raises(UnsupportedError):
        compute("extern", random(2), evaluate=None, **attrs)
