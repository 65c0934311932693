from __future__ import annotations

import ctypes
import gc
import json
import shutil
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from fleetui.common.runtime import LoadError, Model, RunError
from fleetui.common.runtime.binding import Host
from tests.helpers.compiled import feeds_of, wanted


def close(have, graph, feeds):
    for name, want in wanted(graph, feeds).items():
        np.testing.assert_allclose(have[name], want, rtol=1e-4, atol=1e-4)


def test_bound_buffers_stay_the_same_arrays(small):
    graph, folder = small
    model = Model.load(folder)
    place, result = model.inputs["x"], model.outputs["y"]
    for seed in range(3):
        feeds = feeds_of(graph, seed)
        place[...] = feeds["x"]
        model()
        close({"y": result}, graph, feeds)
    assert model.inputs["x"] is place
    assert model.outputs["y"] is result
    assert (model.ports[0].name, model.ports[0].shape, model.ports[0].dtype) == ("x", (1, 20), "float32")


def test_run_gives_arrays_of_its_own(small):
    graph, folder = small
    model = Model.load(folder)
    one, two = feeds_of(graph, 1), feeds_of(graph, 2)
    first = model.run(one)
    model.run(two)
    close(first, graph, one)


def test_big_arrays_are_read_and_written_where_they_lie(wide):
    graph, folder = wide
    model = Model.load(folder)
    one, two = feeds_of(graph, 1), feeds_of(graph, 2)
    first, second = model.run(one), model.run(two)
    close(first, graph, one)
    close(second, graph, two)
    backwards = np.ascontiguousarray(one["x"][:, ::-1])[:, ::-1]
    assert not backwards.flags.c_contiguous
    close(model.run({"x": backwards}), graph, one)
    model.inputs["x"][...] = two["x"]
    model()
    close(model.outputs, graph, two)


def test_lists_and_other_dtypes_are_taken_if_nothing_is_lost(small):
    graph, folder = small
    model = Model.load(folder)
    feeds = feeds_of(graph)
    close(model.run({"x": feeds["x"].astype(np.float64)}), graph, feeds)
    close(model.run({"x": feeds["x"].tolist()}), graph, feeds)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "x was not given"),
        ({"x": np.zeros((2, 20), np.float32)}, r"has shape \[2, 20\], the model wants \[1, 20\]"),
        ({"x": np.zeros((1, 20), np.complex64)}, "is complex64, the model wants float32"),
    ],
)
def test_wrong_feeds_are_named(small, feeds, words):
    with pytest.raises(LoadError, match=words):
        Model.load(small[1]).run(feeds)


def test_more_rows_than_compiled_for(small):
    with pytest.raises(RunError, match="does not take so many rows") as caught:
        Model.load(small[1]).session(rows=3)
    assert caught.value.code == 2


def test_sessions_do_not_disturb_each_other(small):
    graph, folder = small
    model = Model.load(folder)
    a, b = model.session(), model.session()
    one, two = feeds_of(graph, 1), feeds_of(graph, 2)
    a.inputs["x"][...], b.inputs["x"][...] = one["x"], two["x"]
    a()
    b()
    close(a.outputs, graph, one)
    close(b.outputs, graph, two)


def test_many_threads_run_one_model(small):
    graph, folder = small
    model = Model.load(folder)
    feeds = [feeds_of(graph, seed) for seed in range(4)]
    want = [wanted(graph, f)["y"] for f in feeds]
    wrong: list[int] = []

    def work(which):
        for _ in range(300):
            have = model.run(feeds[which])["y"]
            if not np.allclose(have, want[which], rtol=1e-4, atol=1e-5):
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_python_goes_on_while_a_model_runs(wide):
    """The host is CPython's own question whether this thread holds the interpreter: 1 would be a failed host."""
    model = Model.load(wide[1])
    asked = ctypes.cast(ctypes.pythonapi.PyGILState_Check, ctypes.c_void_p)
    host = Host(ctypes.sizeof(Host), None, asked, 2)
    model._own._bound.host = ctypes.addressof(host)
    model.call()
    model._own._through_ctypes()
    holding = ctypes.PyDLL(str(wide[1] / "kernels")).fm_call
    assert holding(model._own._pointer) == 4, "it does notice"


# ------------------------------------------------------------ memory


def test_weights_are_mapped_once_and_read_only(small):
    first, second = Model.load(small[1]), Model.load(small[1])
    assert first.weights is second.weights
    assert first.weights is not None
    assert not first.weights.view.flags.writeable
    assert first.weights.address % 64 == 0
    gone = weakref.ref(first.weights)
    del first, second
    gc.collect()
    assert gone() is None


def test_the_shortest_call_outlives_its_model(small):
    graph, folder = small
    model = Model.load(folder)
    feeds = feeds_of(graph)
    model.inputs["x"][...] = feeds["x"]
    call, result = model.call, model.outputs["y"]
    del model
    gc.collect()
    call()
    close({"y": result}, graph, feeds)


def test_without_the_builtin_it_goes_through_ctypes(small, monkeypatch):
    graph, folder = small
    monkeypatch.setattr(sys.implementation, "name", "other")
    model = Model.load(folder)
    monkeypatch.undo()
    assert model.call.__name__ == "_through_ctypes"
    feeds = feeds_of(graph)
    close(model.run(feeds), graph, feeds)


def test_both_ways_raise_what_the_model_returns(small):
    model = Model.load(small[1])
    assert type(model.call).__name__ == "builtin_function_or_method"
    model._own._bound.rows = 3
    for call in (model, model.call, model._own._through_ctypes):
        with pytest.raises(RunError, match="so many rows") as caught:
            call()
        assert caught.value.code == 2


def test_a_loaded_model_needs_its_folder_no_more(small, tmp_path):
    graph, folder = small
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    model = Model.load(copy)
    shutil.rmtree(copy)
    feeds = feeds_of(graph)
    close(model.run(feeds), graph, feeds)


# ------------------------------------------------------------ files that are not as they should be


@pytest.fixture
def copy(small, tmp_path):
    folder = tmp_path / "v"
    shutil.copytree(small[1], folder)
    return folder


def test_nothing_there(tmp_path):
    with pytest.raises(LoadError, match=r"model\.json is missing"):
        Model.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"abi": 1}', "\xff", '{"abi": "x"}'])
def test_a_record_that_is_none(copy, text):
    (copy / "model.json").write_text(text)
    with pytest.raises(LoadError):
        Model.load(copy)


def test_a_record_of_another_version(copy):
    record = json.loads((copy / "model.json").read_text())
    record["abi"] = 2
    (copy / "model.json").write_text(json.dumps(record))
    with pytest.raises(LoadError, match="is of version 2, this program reads 1"):
        Model.load(copy)


def test_kernels_that_are_no_library(copy):
    (copy / "kernels").write_bytes(b"\x7fELF but not really")
    with pytest.raises(LoadError, match="is not a compiled model for this machine"):
        Model.load(copy)


def test_weights_cut_short(copy):
    data = (copy / "weights").read_bytes()
    (copy / "weights").write_bytes(data[:-64])
    with pytest.raises(LoadError, match="bytes where the kernels want"):
        Model.load(copy)
    (copy / "weights").write_bytes(b"")
    with pytest.raises(LoadError, match="cannot be mapped"):
        Model.load(copy)
    (copy / "weights").unlink()
    with pytest.raises(LoadError):
        Model.load(copy)


def test_a_changed_bit_is_found_where_it_is_looked_for(copy):
    data = bytearray((copy / "weights").read_bytes())
    data[100] ^= 1
    (copy / "weights").write_bytes(data)
    Model.load(copy)
    with pytest.raises(LoadError, match="is not what it was when it was compiled"):
        Model.load(copy, check=True)


def test_it_needs_no_compiler():
    """Loading and calling must not pull in what a device does not have."""
    code = (
        "import sys, fleetui.common.runtime as r; "
        "bad = [n for n in sys.modules if n.split('.')[0] in {'tvm', 'onnx', 'PySide6', 'sqlalchemy'} "
        "or n.startswith('fleetui.workshop')]; print(bad)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
