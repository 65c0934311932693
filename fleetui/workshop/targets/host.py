"""The machine it runs on as a target: what its processor can, how big its caches are. Reads files, runs nothing."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

from fleetui.workshop.target import Target

V2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
V3 = V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

# The kernel's names of what may be used beyond a level, and LLVM's.
X86_EXTRAS = {
    "avx_vnni": "avxvnni", "avx512_vnni": "avx512vnni", "avx512_bf16": "avx512bf16", "avx512_fp16": "avx512fp16",
    "avx512vbmi": "avx512vbmi", "avx512_vbmi2": "avx512vbmi2", "avx512ifma": "avx512ifma",
    "avx512_bitalg": "avx512bitalg", "avx512_vpopcntdq": "avx512vpopcntdq", "gfni": "gfni",
}  # fmt: skip

ARM_PARTS = {
    0xD03: "cortex-a53", 0xD04: "cortex-a35", 0xD05: "cortex-a55", 0xD07: "cortex-a57", 0xD08: "cortex-a72",
    0xD09: "cortex-a73", 0xD0A: "cortex-a75", 0xD0B: "cortex-a76", 0xD0C: "neoverse-n1", 0xD0D: "cortex-a77",
    0xD40: "neoverse-v1", 0xD41: "cortex-a78", 0xD44: "cortex-x1", 0xD49: "neoverse-n2", 0xD4F: "neoverse-v2",
}  # fmt: skip


@cache
def host() -> Target:
    """What this process runs on."""
    machine = platform.machine().lower()
    if sys.platform == "darwin" and machine == "arm64":
        return _apple()
    if machine in {"x86_64", "amd64"}:
        return _x86(_cpuinfo())
    if machine in {"aarch64", "arm64"}:
        return _arm64(_cpuinfo())
    return Target(
        name="host", title=f"This machine ({machine})", triple="", cpu="", os=sys.platform, arch=machine,
        why_not=f"processors of the kind {machine} are not known yet",
    )  # fmt: skip


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return {}
    lines = text.split("\n\n", 1)[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _x86(info: dict[str, str]) -> Target:
    flags = set(info.get("flags", "").split())
    if not flags and sys.platform == "win32":
        flags = set(V3)  # what every PC has that runs a current Windows
    level = next((n for n, need in ((4, V4), (3, V3), (2, V2)) if need <= flags), 1)
    cpu = "x86-64" if level == 1 else f"x86-64-v{level}"
    features = tuple(sorted(f"+{ours}" for theirs, ours in X86_EXTRAS.items() if theirs in flags))
    family = (info.get("vendor_id"), info.get("cpu family"))
    if level == 4 and family in {("AuthenticAMD", "25"), ("AuthenticAMD", "26")}:
        # Vectors of 512 bits cost nothing extra there; LLVM's plain v4 avoids them.
        cpu = "znver4" if {"avx512_vnni", "avx512_bf16", "gfni", "avx512vbmi"} <= flags else cpu
    mhz = int(float(info.get("cpu MHz", "2500")))
    vector = {1: 16, 2: 16, 3: 32, 4: 64}[level]
    windows = sys.platform == "win32"
    return Target(
        name="host",
        title=f"This machine ({info.get('model name', 'x86-64')})",
        triple="x86_64-pc-windows-gnu" if windows else "x86_64-linux-gnu",
        cpu=cpu,
        features=features,
        link="x86_64-windows-gnu" if windows else "x86_64-linux-gnu.2.28",
        os="windows" if windows else "linux",
        arch="x86_64",
        vector=vector,
        registers=32 if level == 4 else 16,
        fma=level >= 3,
        half=level >= 3,
        int8_dot="vnni" if flags & {"avx512_vnni", "avx_vnni"} else "",
        mhz=mhz,
        gflops=mhz / 1000 * vector / 4 * (4 if level >= 3 else 2),
        bandwidth=2e10,
        floor="glibc 2.28",
        **_sizes(),
    )


def _arm64(info: dict[str, str]) -> Target:
    flags = set(info.get("Features", "").split())
    try:
        part = int(info.get("CPU part", "0"), 16)
    except ValueError:
        part = 0
    cpu = ARM_PARTS.get(part, "generic")
    features = tuple(
        llvm
        for flag, llvm in (("asimddp", "+dotprod"), ("asimdhp", "+fullfp16"), ("i8mm", "+i8mm"), ("bf16", "+bf16"))
        if flag in flags
    )
    return Target(
        name="host",
        title=f"This machine ({cpu})",
        triple="aarch64-linux-gnu",
        cpu=cpu,
        features=features,
        link="aarch64-linux-gnu.2.28",
        arch="aarch64",
        vector=16,
        registers=32,
        half="asimdhp" in flags,
        int8_dot="sdot" if "asimddp" in flags else "",
        mhz=2000,
        gflops=32.0 if "asimddp" in flags else 16.0,
        bandwidth=1.5e10,
        floor="glibc 2.28",
        **_sizes(),
    )


def _apple() -> Target:
    return Target(
        name="host", title="This machine (Apple silicon)", triple="arm64-apple-macos11.0", cpu="apple-m1",
        link="aarch64-macos.11.0", os="macos", arch="aarch64", vector=16, registers=32, half=True, int8_dot="sdot",
        l1=128 << 10, l2=12 << 20, line=128, cores=os.cpu_count() or 4, memory=8 << 30, mhz=3200, gflops=102.0,
        bandwidth=6.8e10, floor="macOS 11",
    )  # fmt: skip


def _sizes() -> dict[str, Any]:
    """Caches as the first processor sees them, processors this process may use, memory."""
    found = {"l1": 32 << 10, "l2": 512 << 10, "l3": 0, "line": 64}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level = _read(folder / "type"), int(_read(folder / "level"))
            size = _read(folder / "size")
            line = int(_read(folder / "coherency_line_size"))
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and 1 <= level <= 3:
            unit = {"K": 1 << 10, "M": 1 << 20}.get(size[-1:], 1)
            found[f"l{level}"] = int(size.rstrip("KM")) * unit
            found["line"] = line
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = 8 << 30
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {**found, "cores": cores, "memory": memory}


def _read(path: Path) -> str:
    return path.read_text("utf-8").strip()
