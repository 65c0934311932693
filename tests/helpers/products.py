"""Targets this machine can run, for the tests of products, attention and recurrent networks."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any

from fleetui.workshop.target import Target
from fleetui.workshop.targets.host import host


def targets() -> dict[str, Target]:
    """The host, and on x86 narrower relatives of it."""
    own = host()
    found = {"host": own}
    if platform.machine() == "x86_64":
        shared: dict[str, Any] = {"features": (), "int8_dot": "", "half": False}
        if own.vector >= 32:
            found["avx2"] = replace(own, name="avx2", cpu="haswell", vector=32, registers=16, **shared)
        found["sse"] = replace(own, name="sse", cpu="x86-64-v2", vector=16, registers=16, fma=False, **shared)
        found["scalar"] = replace(own, name="scalar", cpu="x86-64", vector=0, registers=16, fma=False, **shared)
    return found
