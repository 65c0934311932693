"""ONNX Runtime with the same file, for proofs and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array


class OrtPeer:
    name = "onnxruntime"

    def __init__(self, session: Any, version: str) -> None:
        self.version = version
        self._session = session
        self._names: list[str] = [out.name for out in session.get_outputs()]
        self._wanted: set[str] = {entry.name for entry in session.get_inputs()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = {name: np.ascontiguousarray(array) for name, array in feeds.items() if name in self._wanted}
        return dict(zip(self._names, self._session.run(self._names, given), strict=True))


def session_of(model: str | bytes, threads: int) -> Any:
    """A session as it is measured and compared: one operator after the other, so many threads within each."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_peer(path: Path, threads: int) -> OrtPeer | None:
    """``None`` where ONNX Runtime is not installed or cannot take this file."""
    try:
        import onnxruntime
    except ImportError:
        return None
    try:
        session = session_of(str(path), threads)
    except Exception:  # noqa: BLE001 - ONNX Runtime's errors share no base class; any of them means: no peer
        return None
    return OrtPeer(session, str(onnxruntime.__version__))
