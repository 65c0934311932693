"""What faults do to devices at one moment, as columns over the whole fleet. No behaviour of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleet_sim.world.applications import FEATURES


@dataclass(slots=True, eq=False)
class Conditions:
    """All arrays are indexed by device; the neutral values are those of :meth:`none`."""

    link_down: npt.NDArray[np.bool_]
    slower: npt.NDArray[np.float64]  # factor on latencies
    failing: npt.NDArray[np.float64]  # share of rows that fail
    hotter: npt.NDArray[np.float64]  # °C
    disk: npt.NDArray[np.float64]  # share of the disk that something else has filled
    clock_s: npt.NDArray[np.float64]  # added to the device's clock
    shift: npt.NDArray[np.float32]  # (n, features), added to its inputs, in σ
    stuck: npt.NDArray[np.bool_]  # (n, features): the sensor repeats one value

    @classmethod
    def none(cls, n: int) -> Conditions:
        return cls(
            link_down=np.zeros(n, np.bool_),
            slower=np.ones(n),
            failing=np.zeros(n),
            hotter=np.zeros(n),
            disk=np.zeros(n),
            clock_s=np.zeros(n),
            shift=np.zeros((n, FEATURES), np.float32),
            stuck=np.zeros((n, FEATURES), np.bool_),
        )
