"""What somebody asked to be compiled, and how: plain data that goes into jobs, JSON and the wizard."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from fleetui.workshop.graph.ir import Shape


class Weights(StrEnum):
    """How a variant keeps its weights; all but ``fp32`` are expanded in registers, or computed with as they are."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    """Weights and activations in 8 bits; needs calibration data."""
    W8 = "w8"
    """Weights only, 8 bits."""
    W4 = "w4"
    """Weights only, 4 bits."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """``--input NAME=SHAPE[:DTYPE]``: settles symbolic dimensions; an empty dtype keeps the model's."""

    name: str
    shape: Shape
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class Optimise:
    """One way to make a variant smaller or faster. ``label`` names its folder: ``fp32``, ``int8-p50``, …"""

    weights: Weights = Weights.FP32
    prune: float = 0.0
    block: int = 0
    """Prune whole runs of this many weights (0: the target's vector)."""

    @property
    def label(self) -> str:
        return self.weights.value + (f"-p{round(self.prune * 100)}" if self.prune else "")


@dataclass(frozen=True, slots=True)
class Options:
    targets: tuple[str, ...] = ("host",)
    inputs: tuple[InputSpec, ...] = ()
    optimise: tuple[Optimise, ...] = (Optimise(),)
    calibration: str = ""
    check: str = ""
    tune: float = 0.0
    any_batch: bool = False
    threads: int = 1
    """How many threads schedules should be good for; kernels work with any number."""
    tolerance: float = 1e-4
    name: str = ""
    goal: str = ""
    """Limits to recommend within: ``latency=20ms,size=2MB,accuracy=0.95``."""
    limits: dict[str, float] = field(default_factory=dict)
