from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import numpy as np

from fleetui.workshop import targets
from fleetui.workshop.codegen import link
from tests.helpers.compiled import build, feeds_of, mlp, wanted

MAIN = """
#include <stdio.h>
#define FM_MODEL one_thing
#include "one/fleet_model.h"
#undef FLEET_MODEL_H
#undef FM_MODEL
#undef FM
int another_fm_run(const void *const *, void *const *, uint32_t, const void *, void *, const fm_host *);
size_t another_fm_workspace(uint32_t);
static _Alignas(64) char space[65536];
int main(void) {
    float x[20], y[4];
    void *out[] = {y};
    const void *in[] = {x};
    if (fread(x, 4, 20, stdin) != 20) return 9;
    if (one_thing_fm_workspace(1) > sizeof space || another_fm_workspace(1) > sizeof space) return 8;
    int code = one_thing_fm_run(in, out, 1, 0, space, 0);
    fwrite(y, 4, 4, stdout);
    code |= another_fm_run(in, out, 1, 0, space, 0);
    fwrite(y, 4, 4, stdout);
    return code;
}
"""


def test_two_models_in_one_program(tmp_path):
    """As firmware would: static archives with prefixed names, weights inside, no file, no loader."""
    host = targets.find("host")
    static = replace(host, static=True)
    graph = mlp()
    build(graph, tmp_path / "one", static, name="one thing")
    build(mlp(name="another"), tmp_path / "two", static)
    (tmp_path / "main.c").write_text(MAIN, "utf-8")
    tool = link.linker(host)
    for name in ("one", "two"):
        shutil.copy(tmp_path / name / "kernels", tmp_path / f"{name}.a")
    args = [*tool.compiler, "-O1", "main.c", "one.a", "two.a", "-o", "program", "-lm"]
    around = link.environment(tmp_path)
    done = subprocess.run(args, cwd=tmp_path, env=around, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    feeds = feeds_of(graph)
    ran = subprocess.run([tmp_path / "program"], input=feeds["x"].tobytes(), capture_output=True, check=True)
    have = np.frombuffer(ran.stdout, np.float32).reshape(2, 1, 4)
    want = wanted(graph, feeds)["y"]
    np.testing.assert_allclose(have, [want, want], rtol=1e-4, atol=1e-5)
