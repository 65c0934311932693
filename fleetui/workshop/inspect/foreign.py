"""Kinds of files that we know and do not take, each with what to do instead.

``unmistakable`` is asked before the frontends (a magic number settles it), ``likely`` after them (a guess that is
better than none). Neither reads more than the head, an archive's directory or a few fields of a message.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

EXPORT_TORCH = (
    "Export it where its Python code is: model.eval(); "
    "torch.export.save(torch.export.export(model, (example_input,)), 'model.pt2')"
)
EXPORT_SKLEARN = "from fleetui.workshop.frontends.sklearn import export; export(estimator, 'model.json')"
EXPORT_ONNX = "Export it to ONNX from the framework that it came from"
EXPORT_MXNET = (
    "Export it to ONNX with MXNet 1.9: "
    "mxnet.onnx.export_model('m-symbol.json', 'm.params', shapes, types, 'm.onnx')"
)
EXPORT_GRAPH = (
    "Convert it to ONNX: python -m tf2onnx.convert --graphdef FILE --inputs NAMES --outputs NAMES --output m.onnx"
)
Said = tuple[str, str]


def _starts(words: bytes, sentence: str, fix: str) -> tuple[int, bytes, Said]:
    return (0, words, (sentence, fix))


_MAGIC: tuple[tuple[int, bytes, Said], ...] = (
    _starts(b"version https://git-lfs", "is only a pointer to a large file in git", "Fetch the file: git lfs pull"),
    _starts(b"GGUF", "is a language model in GGUF format", "FleetUI compiles networks, not GGUF: " + EXPORT_ONNX),
    _starts(b"\x93NUMPY", "is a numpy array, not a model", "Give the model itself"),
    _starts(b"CBM1", "is a CatBoost model", "Save it as ONNX: model.save_model('model.onnx', format='onnx')"),
    _starts(b"ftrt", "is a TensorRT engine, built for one GPU", "Give the model that it was built from"),
    _starts(b"ptrt", "is a TensorRT engine, built for one GPU", "Give the model that it was built from"),
    _starts(b"RKNN", "is an RKNN model, built for one chip", "Give the model that it was built from"),
    _starts(b"7767517", "is an ncnn model", "Give the model that it was converted from"),
    _starts(b"\x7fELF", "is a program or library, not a model", "Give the model itself"),
    _starts(b"MZ", "is a program or library, not a model", "Give the model itself"),
    _starts(b"\x1f\x8b", "is compressed with gzip", "Unpack it: gunzip"),
    _starts(b"BZh", "is compressed with bzip2", "Unpack it: bunzip2"),
    _starts(b"\xfd7zXZ", "is compressed with xz", "Unpack it: unxz"),
    _starts(b"(\xb5/\xfd", "is compressed with zstd", "Unpack it: unzstd"),
    _starts(b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", "Unpack it, and give the model in it"),
    _starts(b"Rar!", "is a RAR archive", "Unpack it, and give the model in it"),
    _starts(b"\x89PNG", "is a picture", "Give a model"),
    _starts(b"\xff\xd8\xff", "is a picture", "Give a model"),
    _starts(b"%PDF", "is a PDF document", "Give a model"),
    _starts(b"\x12\x01" + bytes(6), "holds the parameters of an MXNet model (retired in 2023)", EXPORT_MXNET),
    (257, b"ustar", ("is a tar archive", "Unpack it, and give the model in it")),
    (4, b"ORTM", ("is a model in ONNX Runtime's own format", "Give the .onnx file that it was made from")),
    (4, b"ET12", ("is an ExecuTorch program", "Give the .pt2 file that it was made from")),
)  # fmt: skip


def unmistakable(head: bytes) -> Said | None:
    for at, magic, said in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return said
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and not _is_length_prefixed(head):
        return (
            "is a Python pickle, which can run any code when it is opened, so it is not opened",
            f"For PyTorch: {EXPORT_TORCH}. For scikit-learn: {EXPORT_SKLEARN}",
        )
    if len(head) > 9 and head[8:9] == b"{" and 2 <= struct.unpack_from("<Q", head)[0] <= 100 << 20:
        return (
            "holds weights (safetensors) but no network",
            f"Load them into the model's code first. {EXPORT_TORCH}",
        )
    text = head[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    low = text[:512].lower()
    if low.startswith((b"<!doctype html", b"<html")):
        return "is a web page; the download did not give the file itself", "Download it again, from the raw link"
    if low.startswith((b"<?xml", b"<net", b"<pmml")):
        return _xml(head)
    return None


def _is_length_prefixed(head: bytes) -> bool:
    """A HDF5 or protobuf cannot begin so, but four printable letters at 4 are a flatbuffer's identifier."""
    return head[4:8] == b"TFL3"


def _xml(head: bytes) -> Said:
    if b"<PMML" in head:
        return "is a PMML model", "Export it to ONNX, or save it in the format of XGBoost or LightGBM"
    if b"<net" in head and (b"<layers" in head or b"version=" in head):
        return "is an OpenVINO model", "Give the ONNX or TensorFlow model that it was converted from"
    return "is an XML file, but no model", "Give a model"


def archive(names: frozenset[str]) -> Said | None:
    """Zip archives that no frontend wanted."""
    tails = {name.rpartition("/")[2] for name in names}
    if any("/code/" in f"/{name}" for name in names) and "constants.pkl" in tails:
        return "is a TorchScript model", EXPORT_TORCH
    if "data.pkl" in tails:
        return "is a pickled PyTorch file, which could run any code, so it is not opened", EXPORT_TORCH
    if any("/aotinductor/" in name for name in names):
        return "holds a model that PyTorch has compiled for one machine", EXPORT_TORCH
    if any(name.startswith("MAR-INF/") for name in names):
        return "is a TorchServe archive", "Unpack it, and export the model in it. " + EXPORT_TORCH
    if any("com.apple.CoreML" in name for name in names):
        return "is a Core ML package", "Give the model that it was converted from"
    if names and all(name.endswith(".npy") for name in names):
        return "holds numpy arrays but no network", EXPORT_ONNX
    inside = sorted(name for name in names if name.endswith((".onnx", ".tflite", ".pt2", ".keras", ".h5")))
    if inside:
        return "is an archive around a model", f"Unpack it, and give {inside[0]:.120}"
    if "schema.json" in names:
        return "is a skops file", f"Where the model was trained: {EXPORT_SKLEARN}"
    if "saved_model.pb" in tails:
        return "is a SavedModel in an archive", "Unpack it, and give the folder"
    return None


def folder(path: Path) -> Said:
    names = {entry.name for entry in list(path.iterdir())[:10_000]}
    if "Manifest.json" in names and (path / "Data").is_dir():
        return "is a Core ML package", "Give the model that it was converted from"
    if "config.json" in names and any(name.endswith((".safetensors", ".bin")) for name in names):
        return (
            "is a Hugging Face model: weights without a graph",
            "Export it to ONNX: optimum-cli export onnx --model FOLDER OUT",
        )
    if any(name.endswith((".ckpt.index", ".index")) for name in names) and "checkpoint" in names:
        return "holds TensorFlow checkpoints, which have no network", "Save the model: model.export('folder')"
    models = sorted(n for n in names if n.endswith((".onnx", ".tflite", ".pt2", ".keras", ".h5", ".cfg", ".mlir")))
    if models:
        return "is a folder", f"Give the model in it: {path.name}/{models[0]}"
    return "is a folder without a model", "Give a model's file, or a folder with saved_model.pb"


def likely(head: bytes, path: Path) -> Said | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{"):
        return _json(text)
    if b"layer {" in text[:8192] or b"layers {" in text[:8192]:
        return "is a Caffe network, a framework without releases since 2017", EXPORT_ONNX
    if len(head) >= 16:
        major, minor, revision = struct.unpack_from("<3i", head)
        if major == 0 and minor in {1, 2} and 0 <= revision <= 5:
            return "holds the weights of a Darknet network", "Give its .cfg; the .weights are found beside it"
    return _message(path)


def _json(text: bytes) -> Said | None:
    if b'"arg_nodes"' in text or (b'"nodes"' in text and b'"op"' in text):
        return (
            "is the graph of an MXNet model (retired in 2023)",
            EXPORT_MXNET,
        )
    if b'"weightsManifest"' in text or b'"modelTopology"' in text:
        return "is a TensorFlow.js model", "Give the Keras or TensorFlow model that it was converted from"
    if b'"class_name"' in text and b'"config"' in text:
        return "describes a Keras model without its weights", "Save the whole model: model.save('model.keras')"
    if b'"architectures"' in text or b'"model_type"' in text:
        return (
            "describes a Hugging Face model without its weights",
            "Export it to ONNX: optimum-cli export onnx --model FOLDER OUT",
        )
    return "is a JSON file, but no model that we know", "XGBoost's JSON models are taken"


def _message(path: Path) -> Said | None:
    """Protobuf messages of others, told apart by their top-level fields."""
    fields = list(top_fields(path, 64))
    kinds = {(number, wire) for number, wire in fields}
    if (1, 0) in kinds and (2, 2) in kinds and any(200 <= number <= 3000 for number, _ in fields):
        return "is a Core ML model", "Give the model that it was converted from"
    if len(fields) > 3 and kinds <= {(1, 2), (100, 2), (2, 2), (3, 2), (4, 0), (5, 0)} and (100, 2) in kinds:
        return "holds the weights of a Caffe network", EXPORT_ONNX
    if len(fields) > 1 and kinds <= {(1, 2), (2, 2), (3, 0), (4, 2)} and sum(n == 1 for n, _ in fields) > 1:
        return (
            "is a frozen TensorFlow graph (version 1)",
            EXPORT_GRAPH,
        )
    return None


def top_fields(path: Path, ceiling: int) -> Iterator[tuple[int, int]]:
    """(number, wire type) of a message's top-level fields, without reading what is in them."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        at = 0
        for _ in range(ceiling):
            file.seek(at)
            head = file.read(20)
            tag, used = _varint(head, 0)
            if used == 0 or tag >> 3 == 0:
                return
            at += used
            wire = tag & 7
            if wire == 0:
                _, more = _varint(head, used)
                if more == 0:
                    return
                at += more
            elif wire in {1, 5}:
                at += 8 if wire == 1 else 4
            elif wire == 2:
                length, more = _varint(head, used)
                if more == 0:
                    return
                at += more + length
            else:
                return
            if at > size:
                return
            yield tag >> 3, wire


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for used in range(10):
        if at + used >= len(data):
            return 0, 0
        byte = data[at + used]
        value |= (byte & 0x7F) << (7 * used)
        if byte < 0x80:
            return value, used + 1
    return 0, 0
