"""A compiled model in this process: its weights mapped once, any number of sessions to call it with.

A ``Session`` has its own buffers and workspace and belongs to one thread at a time. ``Model`` has one of its own
for the simplest use (``inputs``, ``outputs``, calling it) and a shelf of them behind ``run``.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetui.common.runtime.binding import ABI, ALIGN, Bound, Library, address, aligned
from fleetui.common.runtime.direct import builtin
from fleetui.common.runtime.errors import LoadError, RunError
from fleetui.common.runtime.pool import Pool

Array = npt.NDArray[Any]

COPY_BYTES = 1 << 15
"""Inputs and outputs of ``run`` up to so many bytes are copied; a bigger array is handed over where it lies."""

# numpy has no such types; their bits travel in these.
STAND_INS = {"bfloat16": "uint16", "int4": "int8", "uint4": "uint8"}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the model, with the shape of one call of ``rows``."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def of(self, rows: int, fixed: int) -> tuple[int, ...]:
        return self.shape if rows == fixed or not self.shape else (rows, *self.shape[1:])


class Weights:
    """The weights blob, mapped read-only: every process that maps the same file shares its pages."""

    def __init__(self, path: Path, size: int) -> None:
        with path.open("rb") as stream:
            self.map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.view = np.frombuffer(self.map, np.uint8)
        if self.view.nbytes != size:
            raise LoadError(
                f"{path} has {self.view.nbytes} bytes where the kernels want {size}", "Fetch or compile it again"
            )
        self.address = address(self.view)
        if self.address % ALIGN:  # cannot be: a mapping begins on a page
            raise LoadError(f"{path} cannot be mapped", "Compile it again")


_weights: weakref.WeakValueDictionary[tuple[int, int, int, int], Weights] = weakref.WeakValueDictionary()
_weights_lock = threading.Lock()


def _mapped(path: Path, size: int) -> Weights:
    """One mapping for each file, as long as somebody uses it."""
    try:
        about = path.stat()
        key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
        with _weights_lock:
            found = _weights.get(key)
            if found is None:
                found = _weights[key] = Weights(path, size)
            return found
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be mapped: {error}", "Fetch or compile it again") from None


class Session:
    """Buffers bound to a model: fill ``inputs``, call, read ``outputs``. The arrays stay the same ones.

    ``call`` is the shortest way to run it; hold on to it where nanoseconds count.
    """

    def __init__(self, model: Model, rows: int = 0, pool: Pool | None = None) -> None:
        rows = rows or model.rows
        if rows != model.rows and not model.any_rows:
            raise RunError(2)
        library = model.library
        self.rows = rows
        self.inputs = {port.name: _buffer(port.of(rows, model.rows), port.dtype) for port in model.ports}
        self.outputs = {port.name: _buffer(port.of(rows, model.rows), port.dtype) for port in model.results}
        self._in = (ctypes.c_void_p * max(1, len(self.inputs)))(*map(address, self.inputs.values()))
        self._out = (ctypes.c_void_p * max(1, len(self.outputs)))(*map(address, self.outputs.values()))
        workspace = aligned(library.workspace(rows))
        host = pool.host(library) if pool is not None else 0
        self._bound = Bound(
            ctypes.sizeof(Bound), rows, ctypes.addressof(self._in), ctypes.addressof(self._out),
            model.weights.address if model.weights is not None else None, address(workspace), host or None,
        )  # fmt: skip
        self._pointer = ctypes.byref(self._bound)
        self._library = library
        keep = (
            self._in,
            self._out,
            list(self.inputs.values()),
            list(self.outputs.values()),
            workspace,
            model.weights,
            pool,
        )
        self.call: Callable[[], None] = builtin(library, self._bound, keep) or self._through_ctypes
        self._keep = keep
        self._feeds = [(name, place, place.shape, place.dtype) for name, place in self.inputs.items()]
        self._copies = [(name, place.copy) for name, place in self.outputs.items()]
        self._small = all(a.nbytes <= COPY_BYTES for a in (*self.inputs.values(), *self.outputs.values()))

    def __call__(self) -> None:
        self.call()

    def _through_ctypes(self) -> None:
        if code := self._library.call(self._pointer):
            raise RunError(code)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Arrays in, fresh arrays out; what is big is read and written where it lies."""
        if not self._small:
            return self._run_big(feeds)
        for name, place, shape, dtype in self._feeds:
            given = feeds.get(name)
            if given.__class__ is not np.ndarray or given.dtype is not dtype or given.shape != shape:
                given = _fitting(name, given, place)
            place[...] = given
        self.call()
        made: dict[str, Array] = {}
        for name, copy in self._copies:
            made[name] = copy()
        return made

    def _run_big(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        lent: list[tuple[Any, int, Array]] = []
        for index, (name, place, _, _) in enumerate(self._feeds):
            given = _fitting(name, feeds.get(name), place)
            if place.nbytes > COPY_BYTES and given.flags.c_contiguous and given.flags.aligned:
                self._in[index] = address(given)
                lent.append((self._in, index, place))
            else:
                place[...] = given
        made: dict[str, Array] = {}
        for index, (name, place) in enumerate(self.outputs.items()):
            if place.nbytes > COPY_BYTES:
                fresh = np.empty(place.shape, place.dtype)
                self._out[index] = address(fresh)
                lent.append((self._out, index, place))
                made[name] = fresh
        try:
            self.call()
        finally:
            for pointers, index, place in lent:
                pointers[index] = address(place)
        return {name: made[name] if name in made else place.copy() for name, place in self.outputs.items()}


class Model:
    """``ports`` are the inputs, ``results`` the outputs. ``rows`` is the batch of one call, unless ``any_rows``."""

    def __init__(
        self, library: Library, record: Mapping[str, Any], weights: Weights | None = None, pool: Pool | None = None
    ) -> None:
        self.library = library
        self.record = record
        self.weights = weights
        self.pool = pool
        self.name = str(record["model"])
        self.rows = int(record["rows"]["fixed"])
        self.any_rows = bool(record["rows"]["any"])
        self.ports = _ports(record["inputs"])
        self.results = _ports(record["outputs"])
        self._own = self.session()
        self.inputs = self._own.inputs
        self.outputs = self._own.outputs
        self.call = self._own.call
        self._shelf: deque[Session] = deque()

    @classmethod
    def load(cls, folder: Path | str, *, pool: Pool | None = None, check: bool = False) -> Model:
        """The variant in ``folder``. ``check`` compares the blobs with their digests first: it reads them all."""
        folder = Path(folder)
        try:
            record = json.loads((folder / "model.json").read_bytes())
            if record["abi"] != ABI:
                raise LoadError(
                    f"{folder} is of version {record['abi']}, this program reads {ABI}", "Update FleetUI"
                )
            if check:
                for blob in (record["kernels"], record["weights"]):
                    if blob is not None:
                        _check(folder / str(blob["file"]), str(blob["sha256"]))
            library = Library(folder / "kernels")
            weights = _mapped(folder / "weights", library.weights) if library.weights else None
            return cls(library, record, weights, pool)
        except FileNotFoundError as error:
            raise LoadError(f"{error.filename} is missing", "Give the folder of one variant") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LoadError(f"{folder} holds no sound model.json: {error}", "Fetch or compile it again") from None

    def session(self, rows: int = 0, pool: Pool | None = None) -> Session:
        """Buffers of one's own. ``rows`` other than the model's only where it takes any number."""
        return Session(self, rows, pool or self.pool)

    def __call__(self) -> None:
        """Run on the model's own buffers."""
        self.call()

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Arrays in, fresh arrays out, from any number of threads."""
        if self.any_rows and (given := feeds.get(self.ports[0].name)) is not None and len(given) != self.rows:
            return self.session(len(given)).run(feeds)
        shelf = self._shelf
        try:
            session = shelf.pop()
        except IndexError:
            session = self.session()
        try:
            return session.run(feeds)
        finally:
            shelf.append(session)


def _ports(entries: Any) -> tuple[Port, ...]:
    return tuple(Port(str(e["name"]), tuple(int(d) for d in e["shape"]), str(e["dtype"])) for e in entries)


def _buffer(shape: tuple[int, ...], dtype: str) -> Array:
    kind = np.dtype(STAND_INS.get(dtype, dtype))
    size = kind.itemsize
    for dim in shape:
        size *= dim
    if size == 0:
        return np.zeros(shape, kind)
    memory = aligned(size)
    memory[:] = 0
    return memory.view(kind).reshape(shape)


def _fitting(name: str, given: Any, place: Array) -> Array:
    """What was given as an array of the input's shape and dtype, or a sentence."""
    if given is None:
        raise LoadError(f"The input {name} was not given", "Give an array for every input of the model")
    array = np.asarray(given)
    if array.shape != place.shape:
        raise LoadError(f"The input {name} has shape {list(array.shape)}, the model wants {list(place.shape)}")
    if array.dtype != place.dtype:
        if not np.can_cast(array.dtype, place.dtype, "same_kind"):
            raise LoadError(f"The input {name} is {array.dtype}, the model wants {place.dtype}")
        array = array.astype(place.dtype)
    return array


def _check(path: Path, digest: str) -> None:
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    if total.hexdigest() != digest:
        raise LoadError(f"{path} is not what it was when it was compiled", "Fetch or compile it again")
