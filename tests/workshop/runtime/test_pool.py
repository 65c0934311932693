from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fleetui.common.runtime import LoadError, Model, Pool
from fleetui.workshop import codegen, targets
from fleetui.workshop.codegen import link
from tests.helpers.compiled import feeds_of, wanted


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing_in_the_result(wide, threads):
    graph, folder = wide
    feeds = feeds_of(graph)
    alone = Model.load(folder).run(feeds)["y"]
    np.testing.assert_allclose(alone, wanted(graph, feeds)["y"], rtol=1e-4, atol=1e-4)
    with Pool(threads) as pool:
        model = Model.load(folder, pool=pool)
        for _ in range(20):
            np.testing.assert_array_equal(model.run(feeds)["y"], alone)


@pytest.mark.parametrize("spin_us", [0, 200])
def test_one_pool_serves_several_models_and_callers(small, wide, spin_us):
    feeds = {id(g): feeds_of(g) for g, _ in (small, wide)}
    want = {id(g): wanted(g, feeds[id(g)])["y"] for g, _ in (small, wide)}
    wrong: list[str] = []
    with Pool(3, spin_us) as pool:
        models = [(g, Model.load(folder, pool=pool)) for g, folder in (small, wide, wide)]

        def work(graph, model):
            have = [model.run(feeds[id(graph)])["y"] for _ in range(60)]
            wrong.extend(graph.name for y in have if not np.allclose(y, want[id(graph)], rtol=1e-4, atol=1e-4))

        threads = [threading.Thread(target=work, args=pair) for pair in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_threads_wake_after_they_slept(wide):
    graph, folder = wide
    feeds = feeds_of(graph)
    pause = threading.Event()
    with Pool(2, spin_us=10) as pool:
        model = Model.load(folder, pool=pool)
        first = model.run(feeds)["y"]
        for _ in range(5):
            pause.wait(0.01)
            np.testing.assert_array_equal(model.run(feeds)["y"], first)


def test_a_closed_pool_leaves_its_models_working(wide):
    graph, folder = wide
    feeds = feeds_of(graph)
    pool = Pool(3)
    model = Model.load(folder, pool=pool)
    before = threading.active_count()
    first = model.run(feeds)["y"]
    pool.close()
    pool.close()
    assert threading.active_count() == before - 2
    np.testing.assert_array_equal(model.run(feeds)["y"], first)
    with pytest.raises(LoadError, match="The pool is closed"):
        model.session(pool=pool)


def test_a_pool_of_none():
    with pytest.raises(LoadError, match="one or more"):
        Pool(0)


def test_a_pool_that_was_never_used_ends_at_once():
    with Pool(4):
        assert not any(t.name.startswith("model-") for t in threading.enumerate())


@pytest.mark.skipif(sys.platform != "linux", reason="the program brings POSIX threads")
def test_every_piece_runs_once_however_many_jobs_and_callers(tmp_path):
    source = Path(__file__).with_name("pool_stress.c")
    include = Path(codegen.__file__).parent / "c"
    tool = link.linker(targets.find("host"))
    args = [*tool.compiler, "-O2", "-D_GNU_SOURCE", "-I", str(include), str(source), "-o", "stress", "-lpthread"]
    around = link.environment(tmp_path)
    done = subprocess.run(args, cwd=tmp_path, env=around, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([tmp_path / "stress"], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "every piece ran once"), ran.stderr
