"""A kind of hardware to compile for, as the schedules and the code generator need to know it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """From the catalogue (``resources/targets``), the user's own files, or this machine (``host``).

    ``triple``/``cpu``/``features`` are LLVM's; ``link`` is zig's target name (with the libc floor), empty where
    nothing can be linked (then ``why_not`` says why). Sizes are bytes; ``vector`` is the width of a vector
    register in bytes (0: none), ``registers`` how many there are. ``gflops`` (one core, float32) and ``bandwidth``
    (bytes a second) feed estimates and are peak figures of the data sheet, not measurements.
    """

    name: str
    title: str
    triple: str
    cpu: str
    features: tuple[str, ...] = ()
    link: str = ""
    os: str = "linux"
    arch: str = ""
    abi: str = ""
    vector: int = 16
    registers: int = 16
    fma: bool = True
    int8_dot: str = ""
    half: bool = False
    l1: int = 32 << 10
    l2: int = 512 << 10
    l3: int = 0
    line: int = 64
    cores: int = 4
    memory: int = 1 << 30
    gflops: float = 10.0
    bandwidth: float = 4e9
    mhz: int = 1500
    static: bool = False
    floor: str = ""
    runner: str = ""
    why_not: str = ""
    notes: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def lanes(self, bits: int = 32) -> int:
        """How many elements fit one vector register (at least one)."""
        return max(1, self.vector * 8 // bits)

    def tvm(self) -> Any:
        """The compiler's own target object. Imports TVM."""
        import tvm

        options: dict[str, Any] = {"kind": "llvm", "mtriple": self.triple}
        if self.cpu:
            options["mcpu"] = self.cpu
        features = list(self.features)
        if self.triple.startswith(("x86_64", "i686")):
            # Left alone, LLVM makes gathers of loads that stand side by side: several times slower than the loads.
            features.append("+prefer-no-gather")
        if features:
            options["mattr"] = features
        if self.abi:
            options["mabi"] = self.abi
        if self.triple.endswith("eabihf"):
            options["mfloat-abi"] = "hard"  # else calls of libm pass numbers where it does not look for them
        if self.arch.startswith(("thumb", "wasm")):
            options["vector-width"] = 128  # else it warns that it takes 128
        return tvm.target.Target(options)
