"""Reads a ``.pt2`` file: the graph as JSON, the tensors as mapped bytes. Nothing is unpickled by us.

``torch.export.save`` writes an archive with ``models/*.json``, raw tensors and their descriptions (since 2.8);
before that, the tensors were in two pickled members, which only PyTorch's own weights-only reader may touch.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import HostileModel, ModelError, UnsupportedError
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.inspect import archive
from fleetui.workshop.inspect.foreign import EXPORT_TORCH

JSON_CEILING = 256 << 20
OLD = "serialized_exported_program.json"
DTYPES: dict[int, str] = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool",
    13: "bfloat16", 28: "uint16", 34: "uint32", 35: "uint64",
}  # fmt: skip


@dataclass(slots=True)
class Program:
    """``tensors``: by the graph's own placeholder names."""

    graph: dict[str, Any]
    signature: dict[str, Any]
    ranges: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    dialect: str = ""
    tensors: dict[str, Array] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)

    def dtype(self, name: str) -> str:
        return self.dtypes.get(name) or str(self.tensors[name].dtype)


def is_program(names: frozenset[str]) -> bool:
    return OLD in names or _model(names) is not None


def _model(names: frozenset[str]) -> str | None:
    """The graph's member: ``ROOT/models/NAME.json``, ``model`` preferred."""
    found = sorted(n for n in names if n.endswith(".json") and n.split("/")[-2:-1] == ["models"])
    return next((n for n in found if n.endswith("/model.json")), found[0] if found else None)


def read(path: Path) -> Program:
    with archive.open_archive(path) as zipped:
        names = frozenset(zipped.namelist())
        if OLD in names:
            return _read_old(zipped)
        name = _model(names)
        if name is None:
            raise ModelError(f"{path.name} holds no exported program", EXPORT_TORCH)
        root = name[: -len("models/") - len(name.rpartition("/")[2])]
        if archive.read(zipped, f"{root}byteorder", 64).strip() != b"little" and f"{root}byteorder" in names:
            raise UnsupportedError(f"{path.name} was written on a big-endian machine", "Export it on another")
        program = _program(_json(zipped, name))
        model = name.rpartition("/")[2][: -len(".json")]
        for kind in ("weights", "constants"):
            config = f"{root}data/{kind}/{model}_{kind}_config.json"
            if config in names:
                _tensors(program, zipped, path, f"{root}data/{kind}/", _json(zipped, config), kind)
    return program


def _json(zipped: zipfile.ZipFile, name: str) -> dict[str, Any]:
    try:
        made = json.loads(archive.read(zipped, name, JSON_CEILING))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} in the archive is damaged", "Export the model again") from error
    if not isinstance(made, dict):
        raise ModelError(f"{name} in the archive is damaged", "Export the model again")
    return made


def _program(made: dict[str, Any]) -> Program:
    module = made["graph_module"]
    major = int(made.get("schema_version", {}).get("major", 0))
    if major not in {7, 8}:
        raise UnsupportedError(
            f"The file was written in PyTorch's schema {major}, which is not known here",
            "Export it with PyTorch 2.6+",
        )
    dialects = made.get("verifiers") or [made.get("dialect", "")]
    return Program(
        graph=module["graph"], signature=module["signature"], ranges=made.get("range_constraints") or {},
        version=str(made.get("torch_version", "")), dialect=str(dialects[0]),
    )  # fmt: skip


def placeholders(program: Program) -> dict[str, str]:
    """The graph's name for each stored tensor, by the module's name for it."""
    found: dict[str, str] = {}
    for spec in program.signature["input_specs"]:
        for kind, key in (
            ("parameter", "parameter_name"), ("buffer", "buffer_name"), ("tensor_constant", "tensor_constant_name"),
        ):  # fmt: skip
            if spec.get(kind):
                found[str(spec[kind]["arg"]["name"])] = str(spec[kind][key])
    return found


def _tensors(
    program: Program, zipped: zipfile.ZipFile, path: Path, folder: str, config: dict[str, Any], kind: str
) -> None:
    wanted: dict[str, list[str]] = {}
    for placeholder, name in placeholders(program).items():
        wanted.setdefault(name, []).append(placeholder)
    mapped = np.memmap(path, np.uint8, "r")
    for name, entry in config["config"].items():
        if name not in wanted:
            continue
        member = folder + str(entry["path_name"])
        if entry.get("use_pickle") or entry.get("tensor_meta") is None:
            raise HostileModel(
                f"The {kind[:-1]} {name!r:.120} is stored as a pickle, which can run any code, so it is not opened",
                "Replace it by an ordinary tensor, and export the model again",
            )
        info = zipped.getinfo(member)
        begin = archive.data_offset(zipped, member, path)
        data, dtype = _tensor(mapped[begin : begin + info.file_size], entry["tensor_meta"], name)
        for placeholder in wanted[name]:
            program.tensors[placeholder] = data
            program.dtypes[placeholder] = dtype


def _tensor(raw: Array, meta: dict[str, Any], name: str) -> tuple[Array, str]:
    """A strided view over mapped bytes, with every element inside of them."""
    dtype = DTYPES.get(int(meta["dtype"]))
    if dtype is None:
        raise UnsupportedError(f"The tensor {name} has a type that is not supported", "Convert it to float32")
    numpy_dtype = _numpy(dtype)
    shape = [int(d["as_int"]) for d in meta["sizes"]]
    strides = [int(s["as_int"]) for s in meta["strides"]]
    offset = int(meta["storage_offset"]["as_int"])
    if int(meta.get("layout", 7)) != 7:
        raise UnsupportedError(f"The tensor {name} is sparse", "Make it dense: tensor.to_dense()")
    count = raw.size // numpy_dtype.itemsize
    if min(shape, default=1) > 0:
        last = offset + sum((d - 1) * s for d, s in zip(shape, strides, strict=True))
        if min([offset, *strides], default=0) < 0 or last >= count:
            # Views of one storage are stored whole or trimmed; trimmed ones begin at zero.
            last -= offset
            offset = 0
            if min(strides, default=0) < 0 or last >= count:
                raise ModelError(
                    f"The tensor {name} is larger than its bytes in the file", "Export the model again"
                )
    elements = raw[: count * numpy_dtype.itemsize].view(numpy_dtype)
    steps = [s * numpy_dtype.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, steps, writeable=False), dtype


def _numpy(dtype: str) -> np.dtype[Any]:
    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


# ---------------------------------------------------------------- before PyTorch 2.8


def _read_old(zipped: zipfile.ZipFile) -> Program:
    program = _program(_json(zipped, OLD))
    stored: dict[str, Any] = {}
    for stem in ("serialized_state_dict", "serialized_constants"):
        for ending in (".json", ".pt"):
            if stem + ending in zipped.namelist():
                stored.update(_weights_only(archive.read(zipped, stem + ending, 4 << 30)))
    for placeholder, name in placeholders(program).items():
        if name in stored:
            tensor = stored[name].detach().contiguous()
            dtype = str(tensor.dtype).removeprefix("torch.")
            if dtype == "bfloat16":
                data = tensor.view(_torch().int16).numpy().view(_numpy(dtype))
            else:
                data = tensor.numpy()
            program.tensors[placeholder], program.dtypes[placeholder] = data, dtype
    return program


def _torch() -> Any:
    from fleetui.workshop.frontends.torch.extra import torch

    return torch()


def _weights_only(data: bytes) -> dict[str, Any]:
    import io
    import pickle

    if not data:
        return {}
    try:
        made = _torch().load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise HostileModel("The file holds more than tensors, which is not opened", EXPORT_TORCH) from error
    if not isinstance(made, dict):
        raise ModelError("The file's tensors are not in order", "Export the model again")
    return {str(k): v for k, v in made.items() if isinstance(v, _torch().Tensor)}
