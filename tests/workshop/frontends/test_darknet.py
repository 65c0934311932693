"""Darknet networks against a small implementation of its layers in PyTorch, and files that are not in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.darknet import FRONTEND
from fleetui.workshop.options import InputSpec
from tests.helpers.frontends import agree, darknet_weights

torch = pytest.importorskip("torch", reason="the extra 'torch' is not installed")
F = torch.nn.functional

YOLO = """
[net]
# a tiny one
width=64
height=32
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=16
size=3
stride=1
pad=1
activation=mish

[route]
layers=-1
groups=2
group_id=1

[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
groups=2
activation=swish

[shortcut]
from=-2
activation=linear

[route]
layers=-1,1

[maxpool]
size=2
stride=2

[maxpool]
size=2
stride=1

[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear

[yolo]
mask=0,1
anchors=10,14, 23,27, 37,58
classes=2
num=3
scale_x_y=1.1

[route]
layers=-4

[upsample]
stride=2

[reorg]
stride=2

[convolutional]
filters=21
size=1
activation=linear

[region]
anchors=1.5,2.0, 3.1,4.2, 0.7,0.9
classes=2
num=3
softmax=1
"""
CLASSIFIER = """
[net]
width=16
height=16
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=relu

[dropout]
probability=.5

[avgpool]

[connected]
output=5
activation=leaky

[softmax]
"""


class Reference:
    """Reads the same numbers in the same order, with PyTorch's operators on channel-first pictures."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.arrays: list[Any] = []

    def take(self, *shape: int, low: float = -1.0) -> Any:
        made = self.rng.uniform(low, 1.0, shape).astype(np.float32)
        self.arrays.append(made)
        return torch.from_numpy(made)

    def conv(
        self, x: Any, filters: int, size: int, *, stride: int = 1, pad: int = 0, groups: int = 1, norm: bool = True
    ):
        bias = self.take(filters)
        if norm:
            scale, mean, variance = self.take(filters), self.take(filters), self.take(filters, low=0.5)
        w = self.take(filters, x.shape[1] // groups, size, size)
        if not norm:
            return F.conv2d(x, w, bias, stride, pad, groups=groups)
        y = F.conv2d(x, w, None, stride, pad, groups=groups)
        return F.batch_norm(y, mean, variance, scale, bias, eps=1e-5)

    def detect(self, x: Any, anchors: Any, extent: tuple[float, float], scale: float, *, softmax: bool) -> Any:
        n, _, h, w = x.shape
        count = len(anchors)
        x = x.reshape(n, count, -1, h, w).permute(0, 3, 4, 1, 2)
        columns, rows = torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy")
        centre = torch.sigmoid(x[..., :2]) * scale - (scale - 1) / 2
        centre = (centre + torch.stack([columns, rows], -1)[None, :, :, None]) / torch.tensor([w, h])
        size = torch.exp(x[..., 2:4]) * torch.tensor(anchors) / torch.tensor(extent)
        scores = torch.softmax(x[..., 5:], -1) if softmax else torch.sigmoid(x[..., 5:])
        return torch.cat([centre, size, torch.sigmoid(x[..., 4:5]), scores], -1).reshape(n, h * w * count, -1)


def reorg(x: Any, stride: int) -> Any:
    """As Darknet's loops do it, one number after the other."""
    c, h, w = x.shape[1:]
    flat, out = x[0].reshape(-1).numpy(), np.empty(c * h * w, np.float32)
    inner = c // (stride * stride)
    for k in range(c):
        for j in range(h):
            for i in range(w):
                offset = k // inner
                across, down = i * stride + offset % stride, j * stride + offset // stride
                out[i + w * (j + h * k)] = flat[across + w * stride * (down + h * stride * (k % inner))]
    return torch.from_numpy(out.reshape(1, c * stride * stride, h // stride, w // stride))


def yolo(r: Reference, x: Any) -> dict[str, Any]:
    a = F.leaky_relu(r.conv(x, 8, 3, stride=2, pad=1), 0.1)
    b = F.mish(r.conv(a, 16, 3, pad=1))
    half = b[:, 8:]
    c = F.silu(r.conv(half, 8, 3, pad=1, groups=2)) + half
    d = torch.cat([c, b], 1)
    e = F.max_pool2d(F.pad(d, (0, 1, 0, 1), value=-torch.inf), 2, 2)[:, :, : d.shape[2] // 2, : d.shape[3] // 2]
    f = F.max_pool2d(F.pad(e, (0, 1, 0, 1), value=-torch.inf), 2, 1)
    first = r.detect(r.conv(f, 14, 1, norm=False), [(10.0, 14.0), (23.0, 27.0)], (64.0, 32.0), 1.1, softmax=False)
    g = reorg(F.interpolate(e, scale_factor=2), 2)
    h = r.conv(g, 21, 1, norm=False)
    extent = (float(h.shape[3]), float(h.shape[2]))
    second = r.detect(h, [(1.5, 2.0), (3.1, 4.2), (0.7, 0.9)], extent, 1.0, softmax=True)
    return {"boxes0": first.numpy(), "boxes1": second.numpy()}


def test_a_detector_gives_what_the_reference_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    given = rng.uniform(0, 1, (1, 3, 32, 64)).astype(np.float32)
    reference = Reference(rng)
    want = yolo(reference, torch.from_numpy(given))
    (tmp_path / "tiny.cfg").write_text(YOLO)
    darknet_weights(tmp_path / "tiny.weights", reference.arrays)
    assert want["boxes0"].shape == (1, 8 * 16 * 2, 7)
    agree(FRONTEND, tmp_path / "tiny.cfg", feeds={"data": given}, want=want, peer=False)
    report = FRONTEND.inspect(tmp_path / "tiny.cfg", ())
    assert report.parameters == sum(a.size for a in reference.arrays)
    assert report.problems == []
    assert report.warnings == []
    assert [p.shape for p in report.outputs] == [("batch", 256, 7), ("batch", want["boxes1"].shape[1], 7)]
    assert FRONTEND.peer(tmp_path / "tiny.cfg", (), 1) is None


def classifier(r: Reference, x: Any) -> dict[str, Any]:
    y = F.relu(r.conv(x, 8, 3, pad=1)).mean((2, 3))
    bias = r.take(5)
    return {"output": torch.softmax(F.leaky_relu(F.linear(y, r.take(5, 8), bias), 0.1), 1).numpy()}


def test_a_classifier_in_a_batch(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    given = rng.uniform(0, 1, (2, 3, 16, 16)).astype(np.float32)
    reference = Reference(rng)
    want = classifier(reference, torch.from_numpy(given))
    (tmp_path / "net.cfg").write_text(CLASSIFIER)
    darknet_weights(tmp_path / "net.weights", reference.arrays)
    spec = InputSpec("data", (2, 3, 16, 16))
    agree(FRONTEND, tmp_path / "net.cfg", [spec], feeds={"data": given}, want=want, peer=False)


def test_weights_of_another_network_are_told(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(CLASSIFIER)
    with pytest.raises(ModelError, match=r"none \.weights"):
        FRONTEND.inspect(tmp_path / "net.cfg", ())
    darknet_weights(tmp_path / "net.weights", [np.zeros(100)])
    with pytest.raises(ModelError, match="ends too early"):
        FRONTEND.load(tmp_path / "net.cfg", ())
    darknet_weights(tmp_path / "net.weights", [np.zeros(1000)])
    assert "not used" in FRONTEND.inspect(tmp_path / "net.cfg", ()).warnings[0]


def test_weights_elsewhere_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "net.cfg").write_text(CLASSIFIER)
    darknet_weights(tmp_path / "secret.weights", [np.zeros(1000)])
    (folder / "net.weights").symlink_to(tmp_path / "secret.weights")
    with pytest.raises(ModelError, match="leads out of the folder"):
        FRONTEND.load(folder / "net.cfg", ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("filters=8", "filters=0"), "out of range"),
        (("filters=8", "filters=99999999999999"), "out of range"),
        (("filters=8", "filters=many"), "no number"),
        (("[dropout]", "[route]\nlayers=5"), "does not come before"),
        (("width=16", "width=99999999"), "pictures of"),
        (("[net]\n", "[net]\nnonsense\n"), "no option"),
    ],
)
def test_a_network_that_makes_no_sense(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(CLASSIFIER.replace(*change))
    darknet_weights(tmp_path / "net.weights", [np.zeros(1000)])
    with pytest.raises(ModelError, match=words):
        FRONTEND.inspect(tmp_path / "net.cfg", ())


def test_unknown_layers_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(CLASSIFIER.replace("[dropout]", "[crnn]"))
    darknet_weights(tmp_path / "net.weights", [np.zeros(1000)])
    (problem,) = FRONTEND.inspect(tmp_path / "net.cfg", ()).problems
    assert (problem.operator, problem.node) == ("[crnn]", "line 14")
    with pytest.raises(UnsupportedError, match="crnn"):
        FRONTEND.load(tmp_path / "net.cfg", ())
