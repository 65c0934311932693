from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fleetui.common.runtime import Model, Pool
from fleetui.common.runtime.binding import Library
from fleetui.workshop import inspect, pipeline, targets
from fleetui.workshop.codegen import link
from fleetui.workshop.codegen.link import LinkError
from fleetui.workshop.errors import MissingExtra, Stopped, TargetError, UnsupportedError
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.options import Options
from fleetui.workshop.progress import Progress, Stage
from tests.helpers.compiled import build, feeds_of, freestanding, joined, mlp, symbols, wanted


@pytest.fixture(scope="module")
def host():
    return targets.find("host")


@pytest.fixture(scope="module")
def strict(host):
    """The host's compiler in a bad mood: the generated C must give no cause for a warning."""
    return replace(host, extra={"cflags": ["-Wextra", "-Werror"]})


@pytest.fixture(scope="module")
def built(tmp_path_factory, host):
    """An MLP whose weights are a blob of their own."""
    graph = mlp()
    return graph, build(graph, tmp_path_factory.mktemp("mlp") / "v", host)


def agree(graph, folder, **kwargs):
    feeds = feeds_of(graph)
    have = Model.load(folder, **kwargs).run(feeds)
    for name, want in wanted(graph, feeds).items():
        np.testing.assert_allclose(have[name], want, rtol=1e-4, atol=1e-5)


def test_a_model_computes_what_its_graph_does(built):
    agree(*built[:1], built[1].dir)


def test_several_inputs_and_outputs(tmp_path, strict):
    graph = joined()
    variant = build(graph, tmp_path / "v", strict)
    agree(graph, variant.dir)
    assert [port["name"] for port in variant.record["inputs"]] == ["x", "z"]
    assert [port["name"] for port in variant.record["outputs"]] == ["wide", "mean"]
    assert not any(step["op"] == "copy" for step in variant.steps)


def test_the_folder_says_what_it_holds(built):
    graph, variant = built
    record = json.loads((variant.dir / "model.json").read_text("utf-8"))
    assert record == variant.record
    assert {p.name for p in variant.dir.iterdir()} == {"kernels", "weights", "model.json", "fleet_model.h"}
    assert record["kernels"]["bytes"] == (variant.dir / "kernels").stat().st_size == variant.kernels_bytes
    assert record["weights"]["bytes"] == (variant.dir / "weights").stat().st_size == variant.weights_bytes
    parameters = sum(v.size for v in graph.constants())
    assert sum(step["parameters"] for step in record["steps"]) >= parameters
    flops = sum(2 * i * o for i, o in ((20, 64), (64, 32), (32, 4)))
    assert flops <= record["flops"] <= 1.2 * flops
    assert variant.seconds[Stage.LINK.value] > 0


def test_nothing_but_libc_and_libm(built):
    found = symbols(built[1].dir / "kernels")
    assert freestanding(found.undefined), found.undefined
    assert found.needed <= {"libc.so.6", "libm.so.6"}
    assert found.exported == {f"fm_{name}" for name in (*link.EXPORTS, *link.POOL)}


def test_few_weights_live_in_the_kernels(tmp_path, host):
    graph = mlp((4, 8, 2))
    variant = build(graph, tmp_path / "v", host)
    assert variant.weights_bytes == 0
    assert not (variant.dir / "weights").exists()
    agree(graph, variant.dir)


def test_the_same_model_gives_the_same_bytes(built, tmp_path):
    again = build(built[0], tmp_path / "elsewhere", targets.find("host"))
    for name in ("kernels", "weights", "model.json"):
        assert (again.dir / name).read_bytes() == (built[1].dir / name).read_bytes()


@pytest.mark.parametrize("stage", [Stage.SCHEDULE, Stage.GENERATE, Stage.LINK])
def test_a_stop_leaves_nothing(tmp_path, host, stage):
    progress = Progress()

    def listen(step):
        if step.stage is stage:
            progress.stop()

    progress.listener = listen
    with pytest.raises(Stopped):
        pipeline.build_variant(mlp((4, 8, 2)), host, tmp_path / "v", Options(), progress)
    assert list(tmp_path.iterdir()) == []


def test_a_linker_that_fails_says_so_and_leaves_nothing(tmp_path, host):
    strange = replace(host, extra={"cflags": ["-march=no-such-thing"]})
    with pytest.raises(LinkError, match=r"Linking for .* failed: .*unknown CPU"):
        build(mlp((4, 8, 2)), tmp_path / "v", strange)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_result_stays_until_the_new_one_is_there(tmp_path, host):
    folder = tmp_path / "v"
    build(mlp((4, 8, 2)), folder, host)
    before = (folder / "kernels").read_bytes()
    with pytest.raises(LinkError):
        build(mlp((4, 9, 2)), folder, replace(host, extra={"cflags": ["-march=no-such-thing"]}))
    assert (folder / "kernels").read_bytes() == before
    build(mlp((4, 9, 2)), folder, host)
    assert (folder / "kernels").read_bytes() != before


def test_what_cannot_be_linked_is_refused_first(tmp_path, host):
    with pytest.raises(TargetError, match="cannot be built for on this machine: there is no linker"):
        build(mlp((4, 8, 2)), tmp_path / "v", replace(host, why_not="there is no linker"))


def test_names_of_a_model_cannot_leave_their_comment(tmp_path, host):
    b = Builder('*/ int main(void) { return 1; } /* "')
    x = b.input("x", (1, 4), "float32")
    b.source = '*/ #error " \\\n?> */'
    b.output(b.op("relu", b.op("neg", x)), "y")
    graph = b.finish()
    agree(graph, build(graph, tmp_path / "v", host).dir)


def test_inputs_and_constants_may_be_outputs(tmp_path, host):
    b = Builder("handed on")
    x = b.input("x", (2, 3), "float32")
    b.output(x, "same")
    b.output(b.constant(np.arange(4, dtype=np.float32)), "fixed")
    y = b.op("relu", x)
    b.output(y, "one")
    b.output(y, "two")
    graph = b.finish()
    agree(graph, build(graph, tmp_path / "v", host).dir)


# ------------------------------------------------------------ rows


@pytest.fixture(scope="module")
def batched(tmp_path_factory, strict):
    graph = mlp((6, 16, 16, 3))
    return graph, build(graph, tmp_path_factory.mktemp("rows") / "v", strict, any_batch=True)


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_rows(batched, rows, threads):
    graph, variant = batched
    x = np.random.default_rng(rows).standard_normal((rows, 6)).astype(np.float32)
    want = np.concatenate([wanted(graph, {"x": row[None]})["y"] for row in x])
    with Pool(threads) as pool:
        model = Model.load(variant.dir, pool=pool)
        np.testing.assert_allclose(model.run({"x": x})["y"], want, rtol=1e-4, atol=1e-5)
        session = model.session(rows)
        session.inputs["x"][...] = x
        session()
        np.testing.assert_allclose(session.outputs["y"], want, rtol=1e-4, atol=1e-5)


def test_any_number_of_rows_wants_a_batch_in_front(tmp_path, host):
    b = Builder("sum")
    b.output(b.op("reduce", b.input("x", (1, 8), "float32"), kind="sum", axes=(0, 1), keepdims=False), "y")
    with pytest.raises(UnsupportedError, match="not every input and output begins with the batch"):
        build(b.finish(), tmp_path / "v", host, any_batch=True)
    with pytest.raises(UnsupportedError, match="read for 2 at once"):
        build(mlp((4, 2), rows=2), tmp_path / "v", host, any_batch=True)


# ------------------------------------------------------------ many at once


def test_many_graphs_in_one_object(tmp_path, host):
    graphs = [mlp((4, 8, 2)), joined(), mlp((4, 8, 2)), mlp((3, 5))]
    graphs[2].nodes[0].op = "no such operator"
    made = pipeline.build_many(graphs, host, tmp_path / "many")
    assert isinstance(made[2], Exception)
    for index, (graph, ready) in enumerate(zip(graphs, made, strict=True)):
        if isinstance(ready, Exception):
            continue
        model = Model(Library(tmp_path / "many" / "kernels", f"m{index}"), ready.record())
        feeds = feeds_of(graph)
        for name, want in wanted(graph, feeds).items():
            np.testing.assert_allclose(model.run(feeds)[name], want, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------ the system's own compiler


@pytest.mark.skipif(shutil.which("cc") is None, reason="this system has no compiler of its own")
def test_without_zig_the_systems_compiler_serves(tmp_path, host, monkeypatch):
    monkeypatch.setattr(link, "find_spec", lambda _name: None)
    graph = joined()
    variant = build(graph, tmp_path / "v", host)
    assert not link.linker(host).zig
    agree(graph, variant.dir)
    found = symbols(variant.dir / "kernels")
    assert freestanding(found.undefined), found.undefined
    assert found.exported == {f"fm_{name}" for name in (*link.EXPORTS, *link.POOL)}


def test_without_zig_other_targets_ask_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(link, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"Linking for Raspberry Pi 4.*fleetui\[compile\]"):
        build(mlp((4, 2)), tmp_path / "v", targets.find("rpi4-64"))
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------ workspace


@pytest.mark.parametrize("name", ["squeezenet", "resnet50"])
def test_the_workspace_of_a_real_network_is_near_its_bound(host, name):
    import onnx

    source = next((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob(f"*{name}.onnx"))
    ready = pipeline.prepare(inspect.sniff(source).load(source, ()), host)
    assert 0 < ready.program.work_bytes <= 1.3 * ready.program.work_bound
    assert not any(launch.op == "copy" for launch in ready.program.launches), "everything is written in place"


def test_the_workspace_is_near_its_bound(host):
    """Two branches, a residual sum and a concatenation, over and over."""
    b = Builder("blocks")
    x = b.op("tanh", b.input("x", (1, 12, 12, 16), "float32"))
    rng = np.random.default_rng(0)
    for _ in range(4):
        left = b.op("conv", x, b.constant(rng.standard_normal((1, 1, 16, 8)).astype(np.float32)), None,
                    strides=(1, 1), pads=((0, 0), (0, 0)), dilations=(1, 1), groups=1)  # fmt: skip
        right = b.op("pool", b.op("slice", x, starts=(0, 0, 0, 8), stops=(1, 12, 12, 16), steps=(1, 1, 1, 1)),
                     kind="max", kernel=(3, 3), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1),
                     count_include_pad=False, out=(12, 12))  # fmt: skip
        x = b.op("add", x, b.op("concat", left, right, axis=3))
    b.output(x, "y")
    ready = pipeline.prepare(b.finish(), host)
    assert ready.program.work_bound > 0
    assert ready.program.work_bytes <= 1.3 * ready.program.work_bound
