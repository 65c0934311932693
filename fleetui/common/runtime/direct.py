"""The shortest way from Python into a model: a builtin function instead of a call through ctypes.

A model's shared object can play the body of a builtin if it is handed the addresses of a few functions of CPython's
stable interface (``fm_python`` in ``fleet_model.h``). That takes a call from 85 ns to 30. Where it cannot be had
(another Python, a model without it) ``builtin`` says None and the caller goes through ctypes.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from fleetui.common.runtime.binding import Bound, Library
from fleetui.common.runtime.errors import RunError

METH_NOARGS = 4
NAMES = (
    "PyCapsule_GetPointer",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyLong_FromLong",
    "PyErr_SetObject",
    "Py_IncRef",
    "Py_DecRef",
)


class Functions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        *((name, ctypes.c_void_p) for name in NAMES),
        ("none", ctypes.c_void_p),
        ("error", ctypes.c_void_p),
    )


class Method(ctypes.Structure):
    """``PyMethodDef``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_methods: dict[int, Method] = {}
"""One for each library, for ever: builtins point at it."""


def builtin(library: Library, bound: Bound, keep: object) -> Callable[[], None] | None:
    """Calls the model with ``bound`` or raises ``RunError``; keeps ``keep`` alive, to which ``bound`` points."""
    if sys.implementation.name != "cpython":
        return None
    try:
        method = _method(library)
        api = ctypes.pythonapi
        capsule = _made(api, "PyCapsule_New", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
            ctypes.addressof(bound), None, None
        )
        function = _made(api, "PyCFunction_NewEx", ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
        call: Callable[[], None] = function(ctypes.addressof(method), capsule, (bound, keep))
    except AttributeError:  # this model, or this Python, does not have it
        return None
    return call


def _made(api: Any, name: str, *arguments: Any) -> Any:
    return ctypes.PYFUNCTYPE(ctypes.py_object, *arguments)((name, api))


def _method(library: Library) -> Method:
    call = library.address("python_call")
    method = _methods.get(call)
    if method is None:
        functions = Functions(
            ctypes.sizeof(Functions),
            *(ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value for name in NAMES),
            id(None),
            id(RunError),
        )
        library.function("python_use", None, ctypes.c_void_p)(ctypes.addressof(functions))
        method = _methods[call] = Method(b"call", call, METH_NOARGS, None)
    return method
