"""The C interface of ``fleet_model.h`` as ctypes sees it, and memory that fits it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetui.common.runtime.errors import LoadError

ABI = 1
ALIGN = 64


class Host(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("ctx", ctypes.c_void_p),
        ("parallel_for", ctypes.c_void_p),
        ("threads", ctypes.c_uint32),
    )


class Bound(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("rows", ctypes.c_uint32),
        ("inputs", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("host", ctypes.c_void_p),
    )


class Library:
    """The functions of one model in a shared object. Never unloaded: a pool may be running its code."""

    def __init__(self, path: Path, prefix: str = "") -> None:
        name = os.fspath(path.absolute())
        if sys.platform == "win32" and not path.suffix:
            name += "."  # else Windows looks for kernels.dll
        try:
            self.dll = ctypes.CDLL(name)
            self._name = f"{prefix}_fm_" if prefix else "fm_"
            self.call = self.function("call", ctypes.c_int)
            abi = self.function("abi", ctypes.c_uint32)()
        except (OSError, AttributeError) as error:
            raise LoadError(
                f"{path} is not a compiled model for this machine: {error}", "Compile it for this target"
            ) from None
        if abi != ABI:
            raise LoadError(
                f"{path} speaks version {abi} of the interface, this program version {ABI}",
                "Compile the model again" if abi < ABI else "Update FleetUI",
            )
        self.weights: int = self.function("weights", ctypes.c_size_t)()
        self.workspace = self.function("workspace", ctypes.c_size_t, ctypes.c_uint32)

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        function = self.dll[self._name + name]  # by index: a function object of our own
        function.restype = result
        if arguments:
            function.argtypes = arguments
        return function

    def address(self, name: str) -> int:
        where: int | None = ctypes.cast(self.dll[self._name + name], ctypes.c_void_p).value
        return where or 0

    def pool(self, name: str, result: Any, *arguments: Any) -> Any:
        try:
            return self.function(f"pool_{name}", result, *arguments)
        except AttributeError:
            raise LoadError("This model brings no threads", "Call it without a pool") from None


def address(array: npt.NDArray[Any]) -> int:
    where: int = array.__array_interface__["data"][0]
    return where


def aligned(nbytes: int) -> npt.NDArray[np.uint8]:
    """Fresh memory that begins on a multiple of 64 (at least one byte)."""
    raw = np.empty(nbytes + ALIGN, np.uint8)
    start = -address(raw) % ALIGN
    return raw[start : start + max(1, nbytes)]
