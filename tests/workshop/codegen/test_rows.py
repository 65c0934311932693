"""Kernels whose loop runs over the rows themselves: any range of rows is one call, on any thread, with scratch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fleetui.common.runtime import Model, Pool
from fleetui.workshop import pipeline, targets
from fleetui.workshop.codegen import entry
from fleetui.workshop.codegen.accelerators import Foreign, Offer
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.kernel import Arg, Kernel, Temporary

WIDTH = 6
SOURCE = f"""
#include <stdint.h>
/* Turns every row around by way of scratch, which another thread would spoil if it were shared. */
void turn_rows(const float *x, float *scratch, float *y, int32_t lo, int32_t hi) {{
    for (int64_t row = lo; row < hi; row++) {{
        for (volatile int spin = 0; spin < 50; spin++) {{}}
        for (int c = 0; c < {WIDTH}; c++) scratch[c] = x[row * {WIDTH} + c] + 1;
        for (volatile int spin = 0; spin < 50; spin++) {{}}
        for (int c = 0; c < {WIDTH}; c++) y[row * {WIDTH} + c] = scratch[{WIDTH} - 1 - c];
    }}
}}
"""


class Turning:
    name = "turning"

    def take(self, graph, groups, target):
        return [Offer(list(graph.nodes), self.lower)]

    def lower(self, group):
        scratch = Temporary("scratch", (WIDTH,), "float32", per_worker=True)
        args = [Arg(group.inputs[0]), Arg(scratch), Arg(group.outputs[0])]
        detail = {"rows": True}
        return [Kernel("turn", Foreign("turn_rows", SOURCE), args, [1, 2], grain=4, flops=10**6, detail=detail)]


def graph_of():
    b = Builder("turned")
    b.output(b.op("relu", b.input("x", (1, WIDTH), "float32")), "y")
    return b.finish()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    host = replace(targets.find("host"), cores=3, extra={"cflags": ["-Wextra", "-Werror"]})
    return pipeline.build_variant(graph_of(), host, tmp_path_factory.mktemp("rows") / "v", plugins=[Turning()]).dir


@pytest.mark.parametrize("threads", [1, 2, 3, 6])
@pytest.mark.parametrize("rows", [1, 2, 100, 1001])
def test_any_range_of_rows(folder, rows, threads):
    x = np.random.default_rng(rows).standard_normal((rows, WIDTH)).astype(np.float32)
    with Pool(threads) as pool:
        model = Model.load(folder, pool=pool)
        assert model.any_rows
        for _ in range(5):
            np.testing.assert_array_equal(model.run({"x": x})["y"], (x + 1)[:, ::-1])


def test_room_for_as_many_threads_as_the_target_has(folder):
    library = Model.load(folder).library
    assert library.workspace(1) == library.workspace(10**6) == 3 * 64
    assert library.workspace(0) == 0


def test_a_target_with_many_cores_has_room_for_no_more_than_there_are_bits():
    assert entry.seats(replace(targets.find("host"), cores=500)) == entry.WORKERS <= 32
    assert entry.seats(replace(targets.find("host"), cores=0)) == 1
