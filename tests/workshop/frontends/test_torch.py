"""PyTorch programs against PyTorch."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import HostileModel, ShapeError, UnsupportedError
from fleetui.workshop.frontends.torch import FRONTEND
from fleetui.workshop.graph import ir
from fleetui.workshop.options import InputSpec
from tests.helpers.frontends import agree, exported, feeds_for, others_warnings

torch = pytest.importorskip("torch", reason="the extra 'torch' is not installed")
nn, F = torch.nn, torch.nn.functional


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(7)


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding="same", groups=8), nn.Hardswish(), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.Conv2d(8, 12, (1, 3), padding=(0, 1)), nn.SiLU(),
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.last = nn.Linear(12, 5)
        norm = self.features[1]
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.last(torch.flatten(self.features(x), 1))


class Residual(nn.Module):
    """Operators in place, as torchvision's networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(6), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.second(self.relu(self.norm(self.first(x))))
        y += x
        return self.relu(y)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)
        self.group, self.instance, self.prelu = nn.GroupNorm(3, 6), nn.InstanceNorm2d(6, affine=True), nn.PReLU(6)

    def forward(self, x):
        y = self.prelu(self.instance(self.group(self.up(x))))
        return (
            F.interpolate(y, scale_factor=2, mode="bilinear"),
            F.interpolate(y, size=(7, 9), mode="bilinear", align_corners=True),
            F.interpolate(y, scale_factor=1.7), F.interpolate(y, scale_factor=1.5, mode="nearest-exact"),
            F.interpolate(y, size=(5, 20), mode="bicubic"), F.pixel_unshuffle(y, 2), F.pixel_shuffle(x, 2),
            F.adaptive_avg_pool2d(y, (3, 5)), F.adaptive_max_pool2d(y, (3, 5)),
            F.pad(x, (1, 2, 0, 1), mode="reflect"),
        )  # fmt: skip


class Sundry(nn.Module):
    def forward(self, x, i):
        return (
            x[:, 1:3], x.permute(1, 0).contiguous(), F.pad(x, (1, 2), value=3.0), torch.where(x > 0, x, -x * 2),
            x.pow(2).sum(-1, keepdim=True).sqrt(), torch.cat([x, x[:, ::2]], 1), x[i], x[i, i],
            torch.einsum("ij,kj->ik", x, x), x.std(0), x.var(1, unbiased=False), *x.max(1), torch.topk(x, 2)[0],
            x.cumsum(1), torch.stack([x, x * 2], 1).flip(1), x.unfold(1, 2, 1), x.masked_fill(x > 0.5, -1.0),
            torch.arange(4) + i.sum(), x.roll(1, 0), torch.tril(x), x // 0.3, x % 0.7, x.clamp(-1, 1).norm(dim=1),
            x.gather(1, torch.tensor([[0, 1], [2, 2]])),
            torch.zeros_like(x).scatter(1, torch.tensor([[0], [1]]), 5.0),
            F.one_hot(i, 4), x.argmax(), x.softmax(0), x.logsumexp(1), i / 2, i // 2,
            x.abs().log1p().round(decimals=2),
        )  # fmt: skip


class Attention(nn.Module):
    def forward(self, q, k, v, mask):
        return (
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
            F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
            torch.einsum("bhqd,bhkd->bhqk", q, k),
        )


CASES: dict[str, Any] = {
    "mlp": lambda: (
        nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4), nn.Softmax(-1)), (torch.randn(3, 8),)
    ),
    "cnn": lambda: (Cnn(), (torch.randn(1, 3, 32, 32),)),
    "residual": lambda: (Residual(), (torch.randn(2, 6, 9, 9),)),
    "decoder": lambda: (Decoder(), (torch.randn(1, 4, 6, 6),)),
    "gru": lambda: (nn.GRU(6, 5, 2, batch_first=True, bidirectional=True), (torch.randn(2, 4, 6),)),
    "lstm": lambda: (nn.LSTM(6, 5, 2), (torch.randn(4, 2, 6),)),
    "encoder": lambda: (
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu"), (torch.randn(2, 6, 16),)
    ),
    "attention": lambda: (
        Attention(),
        (*(torch.randn(2, 3, 5, n) for n in (4, 4, 6)), torch.tril(torch.ones(5, 5)) > 0),
    ),
    "sundry": lambda: (Sundry(), (torch.randn(5, 4), torch.tensor([0, 3, 1]))),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_program_gives_what_pytorch_gives(case: str, tmp_path: Path) -> None:
    module, arguments = CASES[case]()
    path = exported(module, arguments, tmp_path / "model.pt2")
    graph = FRONTEND.load(path, ())
    feeds = {v.name: a.numpy() for v, a in zip(graph.inputs, arguments, strict=True)}
    agree(FRONTEND, path, feeds=feeds)


def test_recurrent_layers_stay_whole(tmp_path: Path) -> None:
    path = exported(nn.GRU(3, 4), (torch.randn(5, 1, 3),), tmp_path / "gru.pt2")
    assert [n.op for n in FRONTEND.load(path, ()).nodes].count("gru") == 1


def test_a_decomposed_program_is_read_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # PyTorch's progress bar would leave a thread behind
    with others_warnings():
        program = torch.export.export(Cnn().eval(), (torch.randn(1, 3, 32, 32),)).run_decompositions()
        torch.export.save(program, tmp_path / "core.pt2")
    agree(FRONTEND, tmp_path / "core.pt2")


def test_writes_into_views_are_made_functional_by_pytorch(tmp_path: Path) -> None:
    class Writes(nn.Module):
        def forward(self, x):
            y = x * 1
            y[:, 0] = 5
            y[1:, 2].add_(1)
            return y

    path = exported(Writes(), (torch.randn(4, 4),), tmp_path / "views.pt2")
    given = np.arange(16, dtype=np.float32).reshape(4, 4)
    want = given.copy()
    want[:, 0] = 5
    want[1:, 2] += 1
    graph = FRONTEND.load(path, ())
    (have,) = ir.run(graph, {graph.inputs[0].name: given}).values()
    np.testing.assert_array_equal(have, want)


def test_open_dimensions_are_settled_by_name(tmp_path: Path) -> None:
    class Open(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.Linear(4, 6)

        def forward(self, x):
            return self.l(x).view(x.shape[0] * 2, 3)

    batch = torch.export.Dim("batch", min=1, max=64)
    path = exported(Open(), (torch.randn(3, 4),), tmp_path / "open.pt2", dynamic_shapes={"x": {0: batch}})
    report = FRONTEND.inspect(path, ())
    assert len(report.symbolic) == 1
    assert report.inputs[0].shape == (report.symbolic[0], 4)
    assert FRONTEND.load(path, ()).outputs[0].shape == (2, 3)
    graph = agree(FRONTEND, path, [InputSpec("x", (5, 4))])
    assert graph.outputs[0].shape == (10, 3)
    with pytest.raises(ShapeError, match="4"):
        FRONTEND.load(path, [InputSpec("x", (5, 7))])
    with pytest.raises(ShapeError, match="no input 'y'"):
        FRONTEND.load(path, [InputSpec("y", (5, 4))])


def test_training_mode_is_named(tmp_path: Path) -> None:
    with others_warnings():
        program = torch.export.export(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train(), (torch.randn(2, 3),))
        torch.export.save(program, tmp_path / "train.pt2")
    with pytest.raises(UnsupportedError, match="training mode"):
        FRONTEND.load(tmp_path / "train.pt2", ())
    (problem,) = FRONTEND.inspect(tmp_path / "train.pt2", ()).problems
    assert "eval()" in problem.sentence


def test_unknown_operators_are_named_with_their_node(tmp_path: Path) -> None:
    path = exported(nn.Sequential(nn.Linear(3, 3)), (torch.randn(2, 3),), tmp_path / "model.pt2")
    _rewrite(path, lambda text: text.replace(b"torch.ops.aten.linear.default", b"torch.ops.mine.secret.default"))
    (problem,) = FRONTEND.inspect(path, ()).problems
    assert (problem.operator, problem.node) == ("torch.ops.mine.secret.default", "linear")


def test_pickled_members_are_refused(tmp_path: Path) -> None:
    path = exported(nn.Linear(3, 3), (torch.randn(2, 3),), tmp_path / "model.pt2")
    _rewrite(path, lambda text: text.replace(b'"use_pickle": false', b'"use_pickle": true'))
    with pytest.raises(HostileModel, match="pickle"):
        FRONTEND.load(path, ())


def test_reading_opens_no_example_inputs(tmp_path: Path) -> None:
    """They are a pickle: one that would write a file when it is opened is never opened, nor by the peer."""
    path = exported(nn.Linear(3, 3), (torch.randn(2, 3),), tmp_path / "model.pt2")
    witness = tmp_path / "opened"
    evil = f"cos\nsystem\n(S'touch {witness}'\ntR.".encode()
    _replace(path, "/data/sample_inputs/", evil)
    agree(FRONTEND, path)
    assert not witness.exists()


def test_what_older_versions_wrote_is_read(tmp_path: Path) -> None:
    """Up to 2.7 the tensors were two pickled members beside the graph."""
    import io

    module = Cnn()
    new = exported(module, (torch.randn(1, 3, 32, 32),), tmp_path / "new.pt2")
    with zipfile.ZipFile(new) as zipped:
        name = next(n for n in zipped.namelist() if n.endswith("models/model.json"))
        graph = zipped.read(name)
    state = io.BytesIO()
    torch.save(dict(module.state_dict()), state)
    old = tmp_path / "old.pt2"
    with zipfile.ZipFile(old, "w") as zipped:
        zipped.writestr("serialized_exported_program.json", graph)
        zipped.writestr("serialized_state_dict.json", state.getvalue())
        zipped.writestr("version", "8.8")
    have, want = FRONTEND.load(old, ()), FRONTEND.load(new, ())
    feeds = feeds_for(want)
    for a, b in zip(ir.run(have, feeds).values(), ir.run(want, feeds).values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_report_counts(tmp_path: Path) -> None:
    path = exported(nn.Sequential(nn.Linear(8, 16), nn.ReLU()), (torch.randn(3, 8),), tmp_path / "model.pt2")
    report = FRONTEND.inspect(path, ())
    assert report.parameters == 8 * 16 + 16
    assert report.operators == {"aten.linear": 1, "aten.relu": 1}
    assert 3 * 16 * (2 * 8 + 1) <= report.flops <= 3 * 16 * (2 * 8 + 2)
    assert json.loads(json.dumps(report.details))["torch_version"] == torch.__version__


def _rewrite(path: Path, change: Any) -> None:
    with zipfile.ZipFile(path) as zipped:
        members = {n: zipped.read(n) for n in zipped.namelist()}
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name, change(content) if name.endswith(".json") else content)


def _replace(path: Path, part: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as zipped:
        members = {n: zipped.read(n) for n in zipped.namelist()}
    assert any(part in n for n in members)
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in members.items():
            zipped.writestr(name, content if part in name else data)
