from __future__ import annotations

import json
import shutil
import subprocess
from importlib import import_module

import pytest

from fleetui.workshop import targets
from fleetui.workshop.codegen import link
from fleetui.workshop.errors import TargetError
from fleetui.workshop.target import Target
from fleetui.workshop.targets import catalogue
from tests.helpers.compiled import build, feeds_of, freestanding, joined, symbols, wanted

WANTED = {
    "host", "x86-64-v2", "x86-64-v3", "x86-64-v4", "windows-x64", "apple-silicon", "android-arm64",
    "rpi3-64", "rpi3-32", "rpi4-64", "rpi5-64", "rpi-zero2-64",
    "jetson-nano", "jetson-tx2", "jetson-xavier", "jetson-orin", "rk3399", "rk3588",
    "imx8m-plus", "beaglebone-black", "visionfive2", "cortex-m4", "cortex-m7", "cortex-m55", "wasm32",
}  # fmt: skip
ALL = catalogue.all_targets(folder=catalogue.shipped() / "none")


def test_the_catalogue_is_complete():
    assert set(ALL) >= WANTED


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_target_says_all_that_schedules_ask(name):
    target = ALL[name]
    assert isinstance(target, Target)
    assert target.link or target.why_not
    assert target.arch
    assert target.gflops > 0
    assert target.memory >= 1 << 18
    assert target.floor
    assert target.lanes() >= 1
    assert target.static or target.cores >= 1


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_tiny_model_links_for(name, tmp_path):
    """Real code for every target: nothing but the interface leaves the file, nothing but libc and libm enters."""
    variant = build(joined(), tmp_path / "v", ALL[name])
    path = variant.dir / "kernels"
    record = json.loads((variant.dir / "model.json").read_text("utf-8"))
    assert record["target"]["name"] == name
    assert 0 < path.stat().st_size < 1 << 18
    target = ALL[name]
    if target.static:
        assert path.read_bytes().startswith(b"!<arch>\n")
        assert b"joined_fm_run" in path.read_bytes()
    elif target.os == "wasm":
        assert path.read_bytes().startswith(b"\0asm")
    else:
        found = symbols(path)
        marks = {"__mh_dylib_header", "_mh_dylib_header", "__dso_handle", "___dso_handle"}  # the loader's, on macOS
        assert found.exported - marks == {f"fm_{n}" for n in (*link.EXPORTS, *link.POOL)}
        assert freestanding(found.undefined), found.undefined
        assert all(
            n.startswith(("libc", "libm", "ucrtbase", "kernel32", "/usr/lib/libSystem")) for n in found.needed
        )


PROGRAM = """
const fs = require("fs");
const { memory, _initialize, malloc, fm_run, fm_workspace, fm_weights, fm_abi } =
    new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(process.argv[2])), {}).exports;
if (_initialize) _initialize();
const feeds = JSON.parse(fs.readFileSync(0));
const space = (n) => { const p = malloc(n + 64); return p + (64 - (p % 64)) % 64; };
const put = (Kind) => (a) => {
    const p = space(4 * a.length);
    new Kind(memory.buffer, p, a.length).set(a);
    return p;
};
const list = put(Uint32Array);
const inputs = feeds.inputs.map(put(Float32Array)), outputs = feeds.sizes.map((n) => space(4 * n));
const code = fm_run(list(inputs), list(outputs), 1, 0, space(fm_workspace(1)), 0);
const out = outputs.map((p, k) => Array.from(new Float32Array(memory.buffer, p, feeds.sizes[k])));
console.log(JSON.stringify({ code, abi: fm_abi(), weights: fm_weights(), out }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node runs WebAssembly, and is not installed")
def test_web_assembly_computes_the_same(tmp_path):
    import numpy as np

    graph = joined()
    build(graph, tmp_path / "v", ALL["wasm32"])
    feeds = feeds_of(graph)
    (tmp_path / "run.js").write_text(PROGRAM, "utf-8")
    asked = {
        "inputs": [feeds[v.name].ravel().tolist() for v in graph.inputs],
        "sizes": [v.size for v in graph.outputs],
    }
    done = subprocess.run(
        ["node", "run.js", "v/kernels"], input=json.dumps(asked), cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["code"], said["abi"], said["weights"]) == (0, 1, 0)
    for have, want in zip(said["out"], wanted(graph, feeds).values(), strict=True):
        np.testing.assert_allclose(have, want.ravel(), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------ the user's own


def test_a_target_of_ones_own(tmp_path):
    (tmp_path / "mine.toml").write_text('[gate]\nlike = "rpi4-64"\ntitle = "Gate computer"\nmemory = 2000000000\n')
    mine = targets.find("gate", tmp_path)
    assert (mine.title, mine.cpu, mine.memory) == ("Gate computer", "cortex-a72", 2_000_000_000)
    assert mine.why_not == ""


def test_a_target_without_a_linker_says_why(tmp_path):
    (tmp_path / "mine.toml").write_text('[old]\ntitle = "Old"\ntriple = "mips-linux-gnu"\ncpu = "mips32r2"\n')
    assert targets.find("old", tmp_path).why_not == "no linker for it comes with FleetUI"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[x]\ntitle =", "is not a file of targets"),
        ('x = "y"', "x is not a table"),
        ('[x]\nlike = "rpi4-64"\ncoers = 4', "cores"),
        ('[x]\nlike = "rpi4-64"\ncores = "four"', "does not fit"),
        ('[x]\nlike = "rpi4-64"\ncores = -1', "does not fit"),
        ('[x]\ntitle = "X"', "has no triple"),
        ('[x]\nlike = "y"\n[y]\nlike = "x"', "is like itself"),
        ('[x]\nlike = "nobody"', "which there is not"),
    ],
)
def test_a_file_with_a_mistake_is_named(tmp_path, text, words):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(TargetError, match=words):
        targets.find("x", tmp_path)


def test_an_unknown_target_suggests_near_ones(tmp_path):
    with pytest.raises(TargetError, match=r"no target 'rpi4'.*rpi4-64"):
        targets.find("rpi4", tmp_path)


# ------------------------------------------------------------ this machine


CPUINFO = "vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel name\t: Some\ncpu MHz\t: 3000.0\nflags\t: {flags}"


@pytest.mark.parametrize(
    ("vendor", "family", "extra", "cpu", "vector"),
    [
        ("GenuineIntel", 6, "", "x86-64-v2", 16),
        ("GenuineIntel", 6, "v3 avx_vnni", "x86-64-v3", 32),
        ("GenuineIntel", 6, "v3 v4", "x86-64-v4", 64),
        ("AuthenticAMD", 26, "v3 v4 avx512_vnni avx512_bf16 gfni avx512vbmi", "znver4", 64),
        ("AuthenticAMD", 26, "v3", "x86-64-v3", 32),
    ],
)
def test_an_x86_processor_is_told_by_what_it_can(vendor, family, extra, cpu, vector):
    host = import_module("fleetui.workshop.targets.host")

    words = extra.split()
    flags = set(host.V2) | {w for w in words if w not in {"v3", "v4"}}
    flags |= host.V3 if "v3" in words else set()
    flags |= host.V4 if "v4" in words else set()
    info = {"vendor_id": vendor, "cpu family": str(family), "cpu MHz": "3000.0", "flags": " ".join(flags)}
    found = host._x86(info)
    assert (found.cpu, found.vector, found.fma) == (cpu, vector, vector >= 32)
    assert ("+avxvnni" in found.features) == ("avx_vnni" in flags)


def test_an_arm_processor_is_told_by_its_part():
    host = import_module("fleetui.workshop.targets.host")

    found = host._arm64({"CPU part": "0xd0b", "Features": "fp asimd asimdhp asimddp"})
    assert (found.cpu, found.half, found.int8_dot) == ("cortex-a76", True, "sdot")
    assert host._arm64({"CPU part": "0xfff"}).cpu == "generic"
