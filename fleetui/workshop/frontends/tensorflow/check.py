"""What a Keras file or SavedModel may not do, looked for before TensorFlow is let near it.

Keras files name Python classes to make and may carry Python code (Lambda layers); HDF5 files may point at other
files; a SavedModel's graph may read and write files, and runs parts of itself when it is loaded. All of that is
found in the file's own text, without loading it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleetui.workshop.errors import HostileModel, MissingExtra, ModelError, UnsupportedError
from fleetui.workshop.frontends.tensorflow.saved_model import nodes
from fleetui.workshop.inspect import archive

HDF5 = b"\x89HDF\r\n\x1a\n"
CONFIG_CEILING = 64 << 20
GRAPH_CEILING = 1 << 30
SAVE = "Save it whole: model.save('model.keras')"
FORBIDDEN = {
    "ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "EagerPyFunc", "PyFuncStateless", "PrintV2", "Print",
    "WholeFileReader", "WholeFileReaderV2", "TextLineReader", "TextLineReaderV2", "TFRecordReader",
    "TFRecordReaderV2", "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "TextLineDataset",
    "TFRecordDataset", "TFRecordDatasetV2", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "SqlDataset",
    "CreateSummaryFileWriter", "CreateSummaryDbWriter", "WriteSummary", "LoadAndRemapMatrix", "LoadDataset",
    "SaveDataset", "SaveDatasetV2", "ExperimentalRpc", "RpcCall", "TryRpc", "Rpc", "CacheDataset", "CacheDatasetV2",
    "SnapshotDataset", "SnapshotDatasetV2", "Save", "SaveSlices", "Restore", "RestoreSlice", "DataServiceDataset",
    "IteratorFromStringHandle", "LmdbDataset", "CSVDataset", "CSVDatasetV2", "DebugIdentityV2", "DebugIdentity",
}  # fmt: skip


def keras_config(path: Path) -> dict[str, Any]:
    """The network's description; refuses what Keras would have to run or look for elsewhere."""
    with path.open("rb") as file:
        hdf5 = file.read(8) == HDF5
    text = _hdf5_config(path) if hdf5 else _archive_config(path)
    try:
        made = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The description of the network in {path.name} is damaged", SAVE) from error
    if not isinstance(made, dict) or "class_name" not in made:
        raise ModelError(f"{path.name} describes no network", SAVE)
    _check_config(made)
    return made


def _archive_config(path: Path) -> bytes:
    with archive.open_archive(path) as zipped:
        return archive.read(zipped, "config.json", CONFIG_CEILING)


def _hdf5_config(path: Path) -> str | bytes:
    try:
        import h5py  # type: ignore[import-untyped]  # has none
    except ImportError as error:
        raise MissingExtra("A Keras model", "tensorflow") from error
    with h5py.File(path, "r") as file:
        _check_links(file, path)
        if "model_config" not in file.attrs:
            raise ModelError(f"{path.name} is a HDF5 file without a network (perhaps weights only)", SAVE)
        found = file.attrs["model_config"]
    return found if isinstance(found, str | bytes) else bytes(found)


def _check_links(file: Any, path: Path) -> None:
    import h5py

    stack, seen = [file], 0
    while stack:
        group = stack.pop()
        for name in group:
            seen += 1
            if seen > 100_000:
                raise ModelError(f"{path.name} holds an absurd number of parts", "Save it again")
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise HostileModel(f"{path.name} points at another file ({link.filename!r:.80})", "Do not use it")
            if isinstance(link, h5py.SoftLink):
                continue
            item = group[name]
            if isinstance(item, h5py.Group):
                stack.append(item)
            elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                raise HostileModel(f"{path.name} keeps data in another file", "Do not use it")


def _parts(made: Any) -> Iterator[dict[str, Any]]:
    stack = [made]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack += item.values()
        elif isinstance(item, list):
            stack += item


def _check_config(made: dict[str, Any]) -> None:
    for part in _parts(made):
        kind = str(part.get("class_name", ""))
        if kind in {"Lambda", "__lambda__"} or "__lambda__" in part:
            raise HostileModel(
                "The model has a Lambda layer: Python code inside the file, which is not run here",
                "Replace it by keras.ops or a layer, or export the model as a SavedModel: model.export('folder')",
            )
        module = part.get("module")
        ours = module is None or str(module).split(".")[0] in {"keras", "tf_keras"}
        registered = part.get("registered_name")
        custom = isinstance(registered, str) and ">" in registered and not registered.startswith("keras")
        if "class_name" in part and (not ours or custom):
            name = registered if custom else f"{module}.{kind}"
            raise UnsupportedError(
                f"The model uses {name!s:.120}, whose code is not in the file",
                "Export it as a SavedModel where the code is: model.export('folder')",
                operator=str(name)[:120],
            )


def check_graph(path: Path) -> dict[str, int]:
    """The operators of a SavedModel's graph and functions; refuses those that reach outside of it."""
    found = path / "saved_model.pb"
    if not found.is_file():
        raise ModelError(f"{path.name} has no saved_model.pb", "Export it again: model.export('folder')")
    if found.stat().st_size > GRAPH_CEILING:
        raise ModelError(f"The graph of {path.name} is too large", "Export it again")
    counts: dict[str, int] = {}
    for name, op in nodes(memoryview(found.read_bytes())):
        if op in FORBIDDEN:
            raise HostileModel(
                f"The model's graph reaches outside of itself ({op} at {name!r:.80})",
                "Take that out of the model, or do not use it",
            )
        counts[op] = counts.get(op, 0) + 1
    if not counts:
        raise ModelError(f"The graph of {path.name} is damaged", "Export it again: model.export('folder')")
    return counts
