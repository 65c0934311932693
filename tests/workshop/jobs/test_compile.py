"""Compiling as a user does: through the command line or the runner, in real processes, on real models."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from fleetui import cli
from fleetui.common.runtime import Model
from fleetui.workshop import job, runner
from fleetui.workshop.errors import LimitError, Stopped, WorkshopError
from fleetui.workshop.job import Request
from fleetui.workshop.options import Optimise, Options, Weights
from fleetui.workshop.progress import Stage, Step
from fleetui.workshop.prove import data
from tests.bench import zoo
from tests.helpers.wait import wait_until


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "mlp.onnx"
    path.write_bytes(zoo.mlp())
    return path


@pytest.fixture(scope="module")
def compiled(mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[Step]]:
    """One job for several tests: three forms for this machine, one for two others."""
    out = tmp_path_factory.mktemp("compiled") / "out"
    steps: list[Step] = []
    options = Options(
        targets=("host", "rpi4-64"),
        optimise=(Optimise(), Optimise(Weights.FP16), Optimise(Weights.W8)),
        goal="size=1MB",
    )
    outcome = runner.run(Request(str(mlp), str(out), options), steps.append)
    assert outcome.peak_bytes > 50 << 20
    return out, outcome.record, steps


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_a_folder_holds_what_the_record_says(compiled: tuple[Path, dict, list[Step]]) -> None:
    out, record, _ = compiled
    assert job.read_record(out) == json.loads(json.dumps(record))
    assert [v["dir"] for v in record["variants"]] == [
        f"{target}/{form}" for target in ("host", "rpi4-64") for form in ("fp32", "fp16", "w8")
    ]
    for variant in record["variants"]:
        folder = out / variant["dir"]
        names = {p.name for p in folder.iterdir()}
        assert {"kernels", "model.json", "fleet_model.h", "proof.json", "golden.npz"} <= names
        assert (folder / "kernels").stat().st_size == variant["kernels_bytes"]
        assert variant["latency_from"] == ("measured" if variant["target"] == "host" else "estimate")
        assert variant["max_error"] <= (1e-4 if variant["optimise"] == "fp32" else 0.1)
        assert variant["proof"]["executed"] == (
            "on this machine" if variant["target"] == "host" else "under qemu-aarch64"
        )
        assert variant["proof"]["reference"].startswith("onnxruntime ")
    assert record["advice"]["best"]
    assert left_over(out.parent) == []


def test_every_stage_reports_and_has_a_time(compiled: tuple[Path, dict, list[Step]]) -> None:
    _, record, steps = compiled
    finished = {step.stage for step in steps if step.finished}
    assert finished >= {
        Stage.IMPORT,
        Stage.SIMPLIFY,
        Stage.LAYOUT,
        Stage.FUSE,
        Stage.SCHEDULE,
        Stage.LINK,
        Stage.PROVE,
    }
    assert set(record["seconds"]) == {stage.value for stage in finished}


def test_golden_vectors_are_what_the_variant_answers(compiled: tuple[Path, dict, list[Step]]) -> None:
    out, _, _ = compiled
    model = Model.load(out / "host" / "fp32", check=True)
    for feeds, wanted in data.read_golden(out / "host" / "fp32"):
        found = model.run(feeds)
        for name, array in wanted.items():
            assert np.array_equal(found[name], array)


def test_the_bench_command_compares_with_the_source_framework(
    compiled: tuple[Path, dict, list[Step]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _, _ = compiled
    assert cli.main(["bench", str(out), "--rounds", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ratio"] == pytest.approx(found["peer_us"] / found["ours_us"], rel=1e-6)
    assert found["max_error"] < 1e-4
    assert cli.main(["bench", str(out), "--variant", "host/none"]) == 1
    assert "It has: host/fp32" in capsys.readouterr().err
    assert cli.main(["bench", str(out), "--rows", "7"]) == 1
    assert "--batch any" in capsys.readouterr().err


def test_compiling_again_replaces_an_earlier_result_and_nothing_else(
    mlp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert cli.main(["compile", str(mlp), "-o", str(out), "--name", "first"]) == 0
    assert "first:" in capsys.readouterr().out
    assert cli.main(["compile", str(mlp), "-o", str(out), "--name", "second", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "second"
    assert job.read_record(out)["model"] == "second"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert cli.main(["compile", str(mlp), "-o", str(mine)]) == 1
    assert "something else" in capsys.readouterr().err
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert left_over(tmp_path) == []


# ------------------------------------------------------------ what goes wrong


def refused(capsys: pytest.CaptureFixture[str], out: Path, *args: str) -> str:
    """The one sentence on stderr; and nothing was written."""
    assert cli.main(["compile", *args, "-o", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if line.startswith("fleetui: ")]
    assert len(lines) == 1
    assert not out.exists()
    assert left_over(out.parent) == []
    return lines[0]


def test_bad_files_end_in_one_sentence(mlp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = mlp.read_bytes()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(whole[: len(whole) // 2])
    refused(capsys, tmp_path / "out", str(broken))
    said = refused(capsys, tmp_path / "out", str(tmp_path / "nothing.onnx"))
    assert "nothing.onnx" in said


def test_an_operator_nobody_knows_is_named_with_its_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnx import TensorProto, helper

    node = helper.make_node("Unique", ["x"], ["y"], name="the_culprit")
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("x", "y")]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    said = refused(capsys, tmp_path / "out", str(tmp_path / "m.onnx"))
    assert "Unique" in said
    assert "the_culprit" in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--target", "rpi44-64"], "rpi4-64"),
        (["--input", "x=1x21"], "21"),
        (["--int8"], "calibration"),
        (["--goal", "speed=9"], "goal"),
        (["--only"], "leaves nothing"),
        (["--tolerance", "1e-12"], "differs from onnxruntime"),
    ],
)
def test_wishes_that_cannot_be_met_say_why(
    mlp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    assert words in refused(capsys, tmp_path / "out", str(mlp), *args)


def test_weights_that_are_not_numbers_do_not_pass_for_a_model(
    mlp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN weights: source and variant agree on NaN, so it compiles; and the inspection warns."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(mlp))
    first = model.graph.initializer[0]
    array = numpy_helper.to_array(first).copy()
    array[0, 0] = np.nan
    first.CopyFrom(numpy_helper.from_array(array, first.name))
    path = tmp_path / "nan.onnx"
    path.write_bytes(model.SerializeToString())
    assert cli.main(["inspect", str(path), "--json"]) == 0
    assert any("not numbers" in warning for warning in json.loads(capsys.readouterr().out)["warnings"])


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with job._folder(tmp_path / "out") as work:
            (work / "half").write_text("a file")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(LimitError, match="full"):
        fill()
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------ stopping and limits


def run_until(stage: Stage, mlp: Path, out: Path, act: object) -> BaseException | None:
    """Run a job on a thread and do ``act(stop, step)`` when it first reports ``stage``; what it raised."""
    stop, raised, seen = threading.Event(), [], threading.Event()

    def on_step(step: Step) -> None:
        if step.stage is stage and not seen.is_set():
            seen.set()
            act(stop)  # type: ignore[operator]

    def body() -> None:
        try:
            runner.run(Request(str(mlp), str(out)), on_step, stop)
        except WorkshopError as error:
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert seen.is_set()
    return raised[0] if raised else None


@pytest.mark.parametrize("stage", [Stage.IMPORT, Stage.SCHEDULE, Stage.LINK, Stage.PROVE])
def test_a_stop_at_any_stage_leaves_nothing(mlp: Path, tmp_path: Path, stage: Stage) -> None:
    error = run_until(stage, mlp, tmp_path / "out", lambda stop: stop.set())
    assert isinstance(error, Stopped)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_a_killed_job_is_told_and_leaves_nothing(
    mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    real = runner.subprocess.Popen

    def popen(*args: object, **keywords: object) -> object:
        process = real(*args, **keywords)  # type: ignore[call-overload]
        started.append(process.pid)
        return process

    monkeypatch.setattr(runner.subprocess, "Popen", popen)
    error = run_until(Stage.SCHEDULE, mlp, tmp_path / "out", lambda _stop: os.kill(started[0], signal.SIGKILL))
    assert isinstance(error, runner.JobFailed)
    assert error.code == "died"
    assert "SIGKILL" in error.sentence
    assert list(tmp_path.iterdir()) == []


def test_memory_and_time_have_ceilings(mlp: Path, tmp_path: Path) -> None:
    for ceilings, words in ((runner.Ceilings(memory=60 << 20), "memory"), (runner.Ceilings(seconds=0.3), "longer")):
        with pytest.raises(LimitError, match=words):
            runner.run(Request(str(mlp), str(tmp_path / "out")), ceilings=ceilings)
        assert list(tmp_path.iterdir()) == []


def test_what_killed_jobs_left_is_swept_and_living_ones_are_spared(tmp_path: Path) -> None:
    gone = tmp_path / f".out{job.PARTIAL}999999"
    mine = tmp_path / f".out{job.PARTIAL}{os.getpid()}"
    other = tmp_path / f".other{job.PARTIAL}999999"
    for folder in (gone, mine, other):
        folder.mkdir()
    assert job.sweep(tmp_path / "out") == 1
    assert {p.name for p in tmp_path.iterdir()} == {mine.name, other.name}


def test_a_parent_that_is_gone_ends_the_job(mlp: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    process = subprocess.Popen(
        [sys.executable, "-m", "fleetui.workshop.jobprocess"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    request = Request(str(mlp), str(tmp_path / "out"))
    process.stdin.write(json.dumps(request.to_json()).encode() + b"\n")
    process.stdin.flush()
    process.stdout.readline()  # it works
    process.stdin.close()
    wait_until(lambda: process.poll() is not None, timeout=30, what="the job's end")
    process.stdout.close()
    assert process.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_requests_travel_as_json() -> None:
    from fleetui.workshop.options import InputSpec

    options = Options(
        targets=("host", "rpi4-64"), inputs=(InputSpec("x", (1, 3), "float32"),),
        optimise=(Optimise(Weights.INT8, 0.5, 16),), tune=3.0, any_batch=True, goal="latency=1ms",
    )  # fmt: skip
    request = Request("/m.onnx", "/out", options)
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request
