"""Files are known by what is in them, and each that is not taken has its sentence."""

from __future__ import annotations

import io
import json
import pickle
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fleetui.workshop.errors import HostileModel, LimitError, ModelError, UnsupportedError
from fleetui.workshop.frontends import table
from fleetui.workshop.inspect import archive, sniff
from fleetui.workshop.inspect.limits import Limits, size_of
from tests.helpers.inspecting import zipped


def npz() -> bytes:
    made = io.BytesIO()
    np.savez(made, a=np.ones(3))
    return made.getvalue()


def archive_of(**members: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as zipped_file:
        for name, content in members.items():
            zipped_file.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return made.getvalue()


def message(*fields: tuple[int, bytes]) -> bytes:
    out = b""
    for number, content in fields:
        tag = number << 3 | 2
        head = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
        out += head + bytes([len(content)]) + content
    return out


TENSORS = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
FOREIGN: dict[str, tuple[bytes, str, str]] = {
    "pickle": (pickle.dumps({"a": 1}), "pickle", "torch.export.save"),
    "old torch": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle", "torch.export.save"),
    "torch weights": (archive_of(m__data_dot_pkl="x", m__data__0="x"), "pickled PyTorch", "torch.export.save"),
    "torchscript": (archive_of(m__constants_dot_pkl="x", m__code__a="x"), "TorchScript", "eval"),
    "torchserve": (archive_of(**{"MAR-INF__MANIFEST_dot_json": "{}"}), "TorchServe", "Unpack"),
    "onnx in zip": (archive_of(folder__model_dot_onnx="x"), "archive around a model", "folder/model.onnx"),
    "npz": (npz(), "numpy arrays", "ONNX"),
    "npy": (b"\x93NUMPY\x01\x00", "numpy array", "model itself"),
    "gguf": (b"GGUF" + bytes(60), "GGUF", "ONNX"),
    "safetensors": (struct.pack("<Q", len(TENSORS)) + TENSORS + bytes(4), "no network", "torch.export.save"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "pointer", "git lfs pull"),
    "web page": (b"\n<!DOCTYPE html><html>", "web page", "raw link"),
    "mxnet graph": (b'{"nodes": [{"op": "null"}], "arg_nodes": [0]}', "MXNet", "mxnet.onnx.export_model"),
    "mxnet params": (b"\x12\x01" + bytes(30), "MXNet", "mxnet.onnx.export_model"),
    "openvino": (b'<?xml version="1.0"?><net name="a" version="11"><layers/>', "OpenVINO", "ONNX"),
    "pmml": (b'<?xml version="1.0"?><PMML version="4.4">', "PMML", "ONNX"),
    "catboost": (b"CBM1" + bytes(30), "CatBoost", "format='onnx'"),
    "tensorrt": (b"ftrt" + bytes(30), "TensorRT", "built from"),
    "ort": (b"\x18\0\0\0ORTM" + bytes(30), "ONNX Runtime", ".onnx"),
    "executorch": (b"\x18\0\0\0ET12" + bytes(30), "ExecuTorch", ".pt2"),
    "keras config": (b'{"class_name": "Sequential", "config": {}}', "without its weights", "model.keras"),
    "tensorflow.js": (b'{"modelTopology": {}, "weightsManifest": []}', "TensorFlow.js", "converted"),
    "caffe": (b'name: "net"\nlayer { type: "Convolution" }', "Caffe", "ONNX"),
    "darknet weights": (struct.pack("<iiiq", 0, 2, 5, 0) + bytes(40), "Darknet", ".cfg"),
    "frozen graph": (message((1, b"\n\x01a\x12\x01A"), (1, b"\n\x01b\x12\x01B")), "frozen TensorFlow", "tf2onnx"),
    "coreml": (b"\x08\x07" + message((2, b"x"), (500, b"network")), "Core ML", "converted"),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), "gzip", "gunzip"),
    "program": (b"\x7fELF" + bytes(60), "program", "model itself"),
    "noise": (bytes(range(256)), "no model", "FleetUI takes ONNX"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_taken_is_named_with_what_to_do(kind: str, tmp_path: Path) -> None:
    content, words, fix = FOREIGN[kind]
    path = tmp_path / "model.onnx"  # the name says nothing
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        sniff(path)
    assert words in caught.value.sentence
    assert fix in caught.value.fix
    assert "\n" not in str(caught.value)


KNOWN = {
    "tflite": b"\x1c\0\0\0TFL3" + bytes(20),
    "keras": b"\x89HDF\r\n\x1a\n" + bytes(20),
    "stablehlo": b"ML\xefR\rStableHLO_v1.0.0" + bytes(20),
    "darknet": b"# comment\n[net]\nwidth=8\n",
    "torch": archive_of(m__models__model_dot_json="{}"),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_what_is_taken_goes_by_content(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(KNOWN[kind])
    assert sniff(path).kind == kind


def test_more_archives_and_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(archive_of(config_dot_json="{}", **{"model.weights.h5": ""}))
    assert sniff(tmp_path / "a").kind == "keras"
    (tmp_path / "b").write_text("module @m { func.func @main() { stablehlo.add } }")
    assert sniff(tmp_path / "b").kind == "stablehlo"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "saved_model.pb").write_bytes(b"x")
    assert sniff(tmp_path / "c").kind == "savedmodel"


def test_folders_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="without a model"):
        sniff(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="Hugging Face"):
        sniff(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(ModelError) as caught:
        sniff(tmp_path)
    assert "net.onnx" in caught.value.fix


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file"):
        sniff(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ModelError, match="is empty"):
        sniff(tmp_path / "empty")
    with pytest.raises(ModelError, match="neither a file nor a folder"):
        sniff(Path("/dev/zero"))


def test_a_file_of_20_gb_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(20 << 30)
    begin = time.process_time()
    with pytest.raises(LimitError, match=r"20\.0 GiB"):
        sniff(tmp_path / "large")
    assert time.process_time() - begin < 1  # reading it would take many seconds


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"x")
    (folder / "variables").symlink_to("/etc")
    with pytest.raises(HostileModel, match="leads out"):
        size_of(folder, Limits())


# ---------------------------------------------------------------- archives


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb", {"m/models/model.json": bytes(64 << 20)}, packed=True)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(HostileModel, match=r"would grow from .* to 64\.0 MiB"):
        sniff(path)
    with pytest.raises(HostileModel, match="would unpack"):
        archive.open_archive(path, Limits(file=1 << 20))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "C:/x", "a\\..\\b"])
def test_paths_out_of_an_archive_are_refused(name: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "escape", {"plain": b"x"})
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w") as made:
        info = zipfile.ZipInfo("x")
        info.filename = name
        made.writestr(info, b"x")
    assert content != path.read_bytes()
    with pytest.raises(HostileModel, match="leads outside"):
        sniff(path)


def test_links_and_doubles_in_an_archive_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "link", "w") as made:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        made.writestr(info, "/etc/passwd")
    with pytest.raises(HostileModel, match="the link"):
        sniff(tmp_path / "link")
    with zipfile.ZipFile(tmp_path / "twice", "w") as made:
        made.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("a", b"2")
    with pytest.raises(HostileModel, match="twice"):
        sniff(tmp_path / "twice")


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "overlap", {f"m{i}": bytes([i]) * 1000 for i in range(4)})
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    for _ in range(4):
        content[at + 20 : at + 28] = struct.pack("<II", 4000, 4000)
        at = content.find(b"PK\x01\x02", at + 4)
    path.write_bytes(content)
    with pytest.raises(HostileModel, match="overlap"):
        sniff(path)


def test_absurd_directories_are_not_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "absurd", {"a": b"x"})
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\x05\x06")
    content[at + 12 : at + 16] = struct.pack("<I", 0x7FFFFFFF)
    path.write_bytes(content)
    with pytest.raises(HostileModel, match="absurd directory"):
        sniff(path)


def test_cut_archives_are_a_sentence(tmp_path: Path) -> None:
    path = zipped(tmp_path / "cut", {"m/models/model.json": b"{}" * 100})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="end is missing"):
        sniff(path)


# ---------------------------------------------------------------- the table


class Theirs:
    kind = "theirs"
    title = "Their format"
    extra = ""

    def sniff(self, head: bytes, path: Path) -> bool:
        return head.startswith(b"THEIRS")


class Clashing(Theirs):
    kind = "onnx"


class Point:
    def __init__(self, name: str, made: object) -> None:
        self.name = self.value = name
        self.made = made

    def load(self) -> object:
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


@pytest.mark.logs_warnings("does not load|passed over")
def test_others_add_frontends_by_entry_points(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = [Point("a", Theirs()), Point("b", ImportError("gone")), Point("c", Clashing()), Point("d", Theirs())]
    monkeypatch.setattr(table, "entry_points", lambda group: points if group == table.GROUP else [])
    table._others.cache_clear()
    try:
        (tmp_path / "x").write_bytes(b"THEIRS and more")
        assert sniff(tmp_path / "x").kind == "theirs"
        assert table.frontend("theirs").title == "Their format"
        assert table.kinds()[-1] == "theirs"
        assert table.frontend("onnx").kind == "onnx"
        assert not isinstance(table.frontend("onnx"), Clashing)
    finally:
        table._others.cache_clear()


def test_the_table_is_in_order() -> None:
    for kind in table.BUILT_IN:
        assert table.frontend(kind).kind == kind
    with pytest.raises(UnsupportedError, match="nonsense"):
        table.frontend("nonsense")


def test_asking_imports_no_framework(tmp_path: Path) -> None:
    """What kind a file is must be known in milliseconds."""
    import subprocess
    import sys

    (tmp_path / "x").write_bytes(KNOWN["darknet"])
    code = (
        "import sys; from pathlib import Path; from fleetui.workshop.inspect import sniff\n"
        f"assert sniff(Path({str(tmp_path / 'x')!r})).kind == 'darknet'\n"
        "heavy = {'tvm', 'onnx', 'torch', 'tensorflow', 'jax', 'xgboost', 'lightgbm', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
