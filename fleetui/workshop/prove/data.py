"""Inputs to prove with: a person's ``.npz``, or seeded numbers; and golden vectors, the same bytes each time."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import LimitError, ModelError, ShapeError
from fleetui.workshop.graph.ir import Array, Graph, Value

LABELS = ("labels", "y", "target")
CEILING = 4 << 30


@dataclass(slots=True)
class Data:
    """Rows of inputs in batches that fit the graph, and the labels that belong to them."""

    feeds: dict[str, Array]
    labels: Array | None
    batch: int

    @property
    def rows(self) -> int:
        return int(next(iter(self.feeds.values())).shape[0])

    def batches(self, limit: int = 0) -> list[dict[str, Array]]:
        """Full batches only; what is left over is not used."""
        count = self.rows // self.batch
        if limit:
            count = min(count, limit)
        return [
            {n: np.ascontiguousarray(a[i * self.batch : (i + 1) * self.batch]) for n, a in self.feeds.items()}
            for i in range(count)
        ]

    def accuracy(self, outputs: list[dict[str, Array]]) -> float:
        """Share of rows whose class is the label's; of the first output that looks like scores or classes."""
        assert self.labels is not None
        name = _classes(outputs[0])
        answers = np.concatenate([_class_of(o[name]) for o in outputs])
        labels = self.labels.reshape(len(self.labels), -1)
        truth = labels.argmax(1) if labels.shape[1] > 1 else labels[:, 0]
        return float(np.mean(answers == truth[: len(answers)]))


def _classes(outputs: Mapping[str, Array]) -> str:
    scores = [n for n, a in outputs.items() if a.dtype.kind == "f" and a.ndim == 2 and a.shape[1] >= 2]
    return scores[0] if scores else next(iter(outputs))


def _class_of(array: Array) -> Array:
    flat = array.reshape(array.shape[0], -1)
    if array.dtype.kind == "f":
        return flat.argmax(1) if flat.shape[1] > 1 else (flat[:, 0] > 0.5).astype(np.int64)
    return flat[:, 0]


def load(path: Path, graph: Graph, *, labels: bool = False) -> Data:
    """A ``.npz`` with an array for each input by name (or one array for one input), and labels if wished."""
    arrays = _arrays(path)
    found = next((arrays.pop(name) for name in LABELS if name in arrays), None) if labels else None
    if labels and found is None:
        raise ModelError(
            f"{path.name} has no labels",
            f"Add an array named {LABELS[0]!r}; it has {', '.join(arrays) or 'nothing'}",
        )
    for name in LABELS:
        arrays.pop(name, None)
    feeds: dict[str, Array] = {}
    for value in graph.inputs:
        if value.name in arrays:
            feeds[value.name] = _fit(arrays[value.name], value, path)
        elif len(graph.inputs) == 1 and len(arrays) == 1:
            feeds[value.name] = _fit(next(iter(arrays.values())), value, path)
        else:
            raise ModelError(
                f"{path.name} has no array for the input {value.name}", f"It has: {', '.join(arrays) or 'nothing'}"
            )
    if len({a.shape[0] for a in feeds.values()} | ({len(found)} if found is not None else set())) != 1:
        raise ShapeError(f"The arrays in {path.name} have different numbers of rows", "Give each input the same")
    batch = graph.inputs[0].shape[0] if graph.inputs[0].shape else 1
    if next(iter(feeds.values())).shape[0] < batch:
        raise ShapeError(f"{path.name} has fewer rows than the model's batch of {batch}", "Give more rows")
    return Data(feeds, found, max(1, batch))


def _arrays(path: Path) -> dict[str, Array]:
    try:
        if path.suffix == ".npy":
            return {"x": np.load(path, allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > CEILING:
                raise LimitError(f"{path.name} unpacks to more than 4 GiB", "Give fewer rows")
        with np.load(path, allow_pickle=False) as pack:
            return {name: pack[name] for name in pack.files}
    except FileNotFoundError:
        raise ModelError(f"There is no file {path}", "Check --check and --calibration") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path.name} is not a numpy archive ({str(error)[:80]})", "Write it with numpy.savez(file, name=array)"
        ) from None


def _fit(array: Array, value: Value, path: Path) -> Array:
    shape = value.shape
    if array.ndim == len(shape) - 1 and array.shape == shape[1:]:
        array = array[None]
    if array.ndim != len(shape) or array.shape[1:] != shape[1:]:
        raise ShapeError(
            f"{path.name}: rows for {value.name} are {list(array.shape[1:])}, the model takes {list(shape[1:])}",
            "Shape the data like the model's input",
        )
    return array.astype(value.dtype, copy=False)


def generated(graph: Graph, count: int, seed: int = 11) -> list[dict[str, Array]]:
    """Seeded inputs as normalised data has them; integers small enough to be indices of small tables."""
    rng = np.random.default_rng(seed)
    sets = []
    for _ in range(count):
        feeds: dict[str, Array] = {}
        for value in graph.inputs:
            kind = np.dtype(value.dtype)
            if kind.kind == "f":
                feeds[value.name] = rng.standard_normal(value.shape).astype(kind)
            elif kind.kind == "b":
                feeds[value.name] = rng.random(value.shape) < 0.5
            else:
                feeds[value.name] = rng.integers(0, 8, value.shape).astype(kind)
        sets.append(feeds)
    return sets


def errors(have: Array, want: Array) -> tuple[float, float]:
    """Largest and mean difference, both relative to the largest finite number wished for."""
    if want.size == 0:
        return 0.0, 0.0
    a, b = have.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    scale = float(np.max(np.abs(b[np.isfinite(b)]), initial=0.0)) or 1.0
    worst = float(np.max(gap))
    if np.isnan(worst):
        return float("inf"), float("inf")
    return worst / scale, float(np.mean(gap)) / scale


def write_golden(folder: Path, pairs: list[tuple[dict[str, Array], dict[str, Array]]]) -> None:
    """``golden.npz``: arrays named ``in/<set>/<input>`` and ``out/<set>/<output>``; the same bytes each time."""
    with zipfile.ZipFile(folder / "golden.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (feeds, outs) in enumerate(pairs):
            for side, arrays in (("in", feeds), ("out", outs)):
                for name in sorted(arrays):
                    entry = zipfile.ZipInfo(f"{side}/{number}/{name}.npy", (1980, 1, 1, 0, 0, 0))
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    buffer = io.BytesIO()
                    np.lib.format.write_array(buffer, np.ascontiguousarray(arrays[name]), allow_pickle=False)
                    archive.writestr(entry, buffer.getvalue())


def read_golden(folder: Path) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    pairs: dict[int, tuple[dict[str, Array], dict[str, Array]]] = {}
    with np.load(folder / "golden.npz", allow_pickle=False) as pack:
        for key in pack.files:
            side, number, name = key.split("/", 2)
            pair = pairs.setdefault(int(number), ({}, {}))
            pair[0 if side == "in" else 1][name] = pack[key]
    return [pairs[number] for number in sorted(pairs)]


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
