"""The C interface itself: what it answers to wrong arguments, and the examples in C and Rust."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fleetui.common import runtime
from fleetui.common.runtime.binding import Bound, Host, Library, address, aligned
from fleetui.workshop import targets
from fleetui.workshop.codegen import link
from tests.helpers.compiled import feeds_of, wanted

EXAMPLES = Path(runtime.__file__).parent / "examples"
PARALLEL = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32),
    ctypes.c_void_p,
    ctypes.c_int32,
)


class Called:
    """Arguments of fm_run that are right, to be made wrong one at a time."""

    def __init__(self, graph, folder):
        self.library = Library(folder / "kernels")
        self.run = self.library.function(
            "run", ctypes.c_int,
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
        )  # fmt: skip
        self.feeds = feeds_of(graph)
        self.x = aligned(self.feeds["x"].nbytes + 8)
        self.x[: self.feeds["x"].nbytes] = self.feeds["x"].reshape(-1).view(np.uint8)
        out = graph.outputs[0]
        self.y = aligned(out.nbytes + 8)
        self.shape = out.shape
        self.weights = aligned(self.library.weights + 64)
        self.weights[: self.library.weights] = np.fromfile(folder / "weights", np.uint8)
        self.work = aligned(self.library.workspace(1) + 64)
        self.arguments = {
            "inputs": [address(self.x)], "outputs": [address(self.y)], "rows": 1, "weights": address(self.weights),
            "workspace": address(self.work), "host": None,
        }  # fmt: skip

    def __call__(self, **changed):
        a = {**self.arguments, **changed}
        i, o = (None if v is None else (ctypes.c_void_p * 1)(*v) for v in (a["inputs"], a["outputs"]))
        return self.run(i, o, a["rows"], a["weights"], a["workspace"], a["host"])

    @property
    def result(self):
        size = int(np.prod(self.shape)) * 4
        return self.y[:size].view(np.float32).reshape(self.shape)


@pytest.fixture
def called(small):
    return Called(*small)


def test_right_arguments(small, called):
    assert called() == 0
    np.testing.assert_allclose(called.result, wanted(small[0], called.feeds)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"inputs": None}, 1),
        ({"outputs": None}, 1),
        ({"inputs": [None]}, 1),
        ({"outputs": [None]}, 1),
        ({"weights": None}, 1),
        ({"workspace": None}, 1),
        ({"rows": 0}, 2),
        ({"rows": 2}, 2),
        ({"rows": 0xFFFFFFFF}, 2),
    ],
)
def test_wrong_arguments_are_answered_with_a_code(called, changed, code):
    assert called(**changed) == code


def test_misaligned_buffers(called):
    right = called.arguments
    assert called(inputs=[right["inputs"][0] + 2]) == 3
    assert called(outputs=[right["outputs"][0] + 1]) == 3
    assert called(weights=right["weights"] + 4) == 3
    assert called(workspace=right["workspace"] + 32) == 3
    assert called(inputs=[right["inputs"][0] + 4]) == 0, "an element's alignment is enough"


def test_hosts_that_are_none(called):
    @PARALLEL
    def never(_ctx, _body, _arg, _n):
        return 1

    small = Host(8, None, ctypes.cast(never, ctypes.c_void_p), 0)
    assert called(host=ctypes.addressof(small)) == 1, "too old to have a parallel_for"
    empty = Host(ctypes.sizeof(Host), None, None, 2)
    assert called(host=ctypes.addressof(empty)) == 1


def test_what_the_host_does_with_the_pieces(wide):
    """Backwards, and counted; then a host that fails."""
    graph, _ = wide
    called = Called(*wide)
    seen: list[int] = []

    @PARALLEL
    def backwards(_ctx, body, arg, n):
        seen.append(n)
        return max(body(arg, i, n) for i in reversed(range(n)))

    host = Host(ctypes.sizeof(Host), None, ctypes.cast(backwards, ctypes.c_void_p), 3)
    assert called(host=ctypes.addressof(host)) == 0
    assert seen
    assert all(2 <= n <= 12 for n in seen), "a few pieces for each of three threads"
    np.testing.assert_allclose(called.result, wanted(graph, called.feeds)["y"], rtol=1e-4, atol=1e-4)

    @PARALLEL
    def failing(_ctx, _body, _arg, _n):
        return 77

    broken = Host(ctypes.sizeof(Host), None, ctypes.cast(failing, ctypes.c_void_p), 2)
    assert called(host=ctypes.addressof(broken)) == 4


def test_a_bound_call_checks_its_own_size(called):
    bound = Bound(ctypes.sizeof(Bound) - 1, 1, None, None, None, None, None)
    assert called.library.call(ctypes.byref(bound)) == 1
    assert called.library.call(None) == 1


def test_the_workspace_is_left_alone_beyond_its_size(small, called):
    """And weights and inputs everywhere: whoever writes past an end is found here."""
    size = called.library.workspace(1)
    called.work[size:] = 0xA5
    called.y[called.result.nbytes :] = 0xA5
    before = called.weights.copy(), called.x.copy()
    assert called() == 0
    assert (called.work[size:] == 0xA5).all()
    assert (called.y[called.result.nbytes :] == 0xA5).all()
    assert (called.weights == before[0]).all()
    assert (called.x == before[1]).all()


# ------------------------------------------------------------ other languages


def ran(program, graph, folder, tmp_path):
    feeds = feeds_of(graph)
    feeds["x"].tofile(tmp_path / "in.bin")
    out = graph.outputs[0]
    args = [str(tmp_path / program), str(folder), "1", "in.bin", "--", "out.bin", str(out.nbytes)]
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    have = np.fromfile(tmp_path / "out.bin", np.float32).reshape(out.shape)
    np.testing.assert_allclose(have, wanted(graph, feeds)[out.name], rtol=1e-4, atol=1e-5)
    bad = subprocess.run([*args[:2], "2", *args[3:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stderr.strip()) == (1, "the model returned 2")


@pytest.mark.skipif(sys.platform != "linux", reason="the example maps files as POSIX does")
def test_the_example_in_c(small, tmp_path):
    graph, folder = small
    tool = link.linker(targets.find("host"))
    source = str(EXAMPLES / "run_model.c")
    args = [*tool.compiler, "-O1", "-Wall", "-Werror", "-I", str(folder), source, "-o", "run_model", "-ldl"]
    done = subprocess.run(
        args, cwd=tmp_path, env=link.environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ran("run_model", graph, folder, tmp_path)


@pytest.mark.skipif(shutil.which("rustc") is None, reason="Rust is not installed")
def test_the_example_in_rust(small, tmp_path):
    graph, folder = small
    done = subprocess.run(
        ["rustc", "-D", "warnings", str(EXAMPLES / "run_model.rs"), "-o", "run_model"], cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ran("run_model", graph, folder, tmp_path)
