"""Loads and calls compiled models with ctypes and numpy only, the same on a device, simulated or at the desk.

    model = Model.load("out/host/fp32")
    model.inputs["x"][...] = numbers
    model()                             # releases the interpreter while it runs
    print(model.outputs["y"])

    model.run({"x": numbers})           # arrays of its own; any number of threads at once

Compiling is elsewhere (``fleetui.workshop``); this package never imports it.
"""

from fleetui.common.runtime.errors import LoadError, RunError
from fleetui.common.runtime.model import Model, Port, Session
from fleetui.common.runtime.pool import Pool

__all__ = ["LoadError", "Model", "Pool", "Port", "RunError", "Session"]
