"""From a file to a report, through the limited process, and on the command line."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fleetui.common.domain.errors import ConfigError, OperatorError
from fleetui.workshop import cli_inspect
from fleetui.workshop.errors import ModelError, ShapeError
from fleetui.workshop.frontends import darknet, tflite, torch
from fleetui.workshop.frontends.base import Port, Problem, Report
from fleetui.workshop.inspect import Limits, inspect_file, report
from fleetui.workshop.options import InputSpec
from tests.helpers.frontends import darknet_weights, dense_tflite, exported
from tests.helpers.inspecting import inner_mutations, mutations, zipped

CFG = """[net]
width=16
height=16
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
pad=1
activation=leaky
[route]
layers=-1
[upsample]
stride=2
[avgpool]
[connected]
output=5
activation=linear
[softmax]
"""
COUNT = int(os.environ.get("FLEETUI_TEST_FUZZ", "40"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("darknet")
    (folder / "net.cfg").write_text(CFG)
    darknet_weights(folder / "net.weights", [np.full(4 * 4 + 4 * 27 + 5 + 20, 0.5)])
    return folder / "net.cfg"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch_ = pytest.importorskip("torch", reason="the extra 'torch' is not installed")
    nn = torch_.nn
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    return exported(module, (torch_.zeros(1, 3, 8, 8),), tmp_path_factory.mktemp("torch") / "model.pt2")


def test_a_report_comes_back_whole(network: Path) -> None:
    found = inspect_file(network)
    assert found == replace(darknet.FRONTEND.inspect(network, ()), bytes=found.bytes)
    assert found.inputs == [Port("data", ("batch", 3, 16, 16), "float32")]
    assert found.parameters == 4 * 4 + 4 * 27 + 25
    assert found.flops > 2 * 16 * 16 * 4 * 27
    assert inspect_file(network, [InputSpec("data", (2, 3, 16, 16))]).flops == 2 * found.flops


def test_shapes_that_do_not_fit_are_a_sentence(network: Path) -> None:
    with pytest.raises(ShapeError, match="does not fit 3"):
        inspect_file(network, [InputSpec("data", (1, 4, 16, 16))])


def test_reports_survive_json() -> None:
    whole = Report(
        "x", "X", [Port("a", (1, "n"), "int8")], [Port("b", (), "bool")], 3, {"Op": 2}, 7, 11, ["n"],
        [Problem("Op", "here", "no")], ["careful"], {"k": 1},
    )  # fmt: skip
    assert report.from_json(json.loads(json.dumps(report.to_json(whole)))) == whole


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    cli_inspect.configure(parser)
    return cli_inspect.run(parser.parse_args(arguments))


def test_the_command_prints_a_table(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run([str(network)]) == 0
    said = capsys.readouterr().out
    for words in ("Darknet network (darknet)", "batch×3×16×16", "[convolutional]", "FLOP", "net.weights"):
        assert words in said
    assert said.rstrip().endswith(
        "next: settle the symbolic dimensions: fleetui compile net.cfg --input data=1x3x16x16 -o DIR"
    )


def test_the_command_prints_json(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run([str(network), "--input", "data=1x3x16x16", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kind"] == "darknet"
    assert said["inputs"] == [{"name": "data", "shape": ["batch", 3, 16, 16], "dtype": "float32"}]
    assert said["problems"] == []
    assert said["next"].startswith("settle") or said["next"].startswith("fleetui compile")


def test_problems_are_shown_with_their_nodes() -> None:
    whole = Report("x", "X", problems=[Problem("Op", "layer/7", "not supported")] * 30)
    said = "\n".join(report.lines(whole, "f"))
    assert "Op at layer/7: not supported" in said
    assert "and 10 more" in said
    assert "replace Op" in said


def test_wrong_wishes_are_said_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="not a whole number"):
        _run(["/nowhere", "--input", "data=axb"])


# ---------------------------------------------------------------- damaged files


def survived(act, path: Path) -> None:
    """A report or a sentence; anything else is a failure."""
    said: OperatorError | None = None
    try:
        assert act(path, ()).kind
    except OperatorError as error:
        said = error
    assert said is None or (said.sentence and "\n" not in str(said))


def test_damaged_networks_end_in_a_sentence(network: Path, tmp_path: Path) -> None:
    weights = network.with_suffix(".weights").read_bytes()
    for number, text in enumerate(mutations(CFG.encode(), COUNT, 1)):
        (tmp_path / "net.cfg").write_bytes(text)
        (tmp_path / "net.weights").write_bytes(weights if number % 4 else weights[: number * 7])
        survived(darknet.FRONTEND.inspect, tmp_path / "net.cfg")


def test_damaged_programs_end_in_a_sentence(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # PyTorch is not asked: it is only where a whole graph cannot be read, and has the limited process to itself.
    monkeypatch.setattr(type(torch.FRONTEND), "_functional", lambda *_: None)
    monkeypatch.setattr("fleetui.workshop.frontends.torch.frontend.decomposed", _refused)
    path = tmp_path / "model.pt2"
    for content in mutations(program.read_bytes(), COUNT, 2):
        path.write_bytes(content)
        survived(torch.FRONTEND.inspect, path)
    for members in inner_mutations(program, COUNT, 3):
        survived(torch.FRONTEND.inspect, zipped(path, members))


def _refused(path: Path):
    raise ModelError("not asked")


def test_damaged_flatbuffers_end_in_a_sentence(tflite_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    for content in mutations(tflite_model.read_bytes(), 2 * COUNT, 4):
        path.write_bytes(content)
        survived(tflite.FRONTEND.inspect, path)


@pytest.fixture(scope="module")
def tflite_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by hand: one dense layer. (TensorFlow takes seconds to be imported.)"""
    pytest.importorskip("tflite", reason="the extra 'tflite' is not installed")
    return dense_tflite(tmp_path_factory.mktemp("tflite") / "dense.tflite")


def test_the_model_written_by_hand_is_sound(tflite_model: Path) -> None:
    found = inspect_file(tflite_model)
    assert found.problems == []
    assert found.parameters == 15
    assert found.flops == 3 * (2 * 4 + 1)


def test_memory_is_bounded_where_a_file_asks_for_much(network: Path, tmp_path: Path) -> None:
    """A picture of 32768 by 32768 in 1048576 channels is small in the .cfg."""
    (tmp_path / "net.cfg").write_text(
        CFG.replace("width=16", "width=32768")
        .replace("height=16", "height=32768")
        .replace("[avgpool]", "[reorg]\nstride=1")
    )
    (tmp_path / "net.weights").write_bytes(network.with_suffix(".weights").read_bytes())
    with pytest.raises(OperatorError):
        inspect_file(tmp_path / "net.cfg", limits=Limits(memory=1 << 30, wall=60))
