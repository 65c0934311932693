"""The two files of a Darknet network: sections and options in text, and a row of numbers. Nothing is believed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fleetui.workshop.errors import ModelError
from fleetui.workshop.graph.ir import Array

TEXT_CEILING = 4 << 20
LAYERS = 10_000


@dataclass(slots=True)
class Section:
    kind: str
    line: int
    options: dict[str, str] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        return self.options.get(name, default)

    def whole(self, name: str, default: int) -> int:
        return int(self._number(name, default))

    def real(self, name: str, default: float) -> float:
        return self._number(name, default)

    def _number(self, name: str, default: float) -> float:
        text = self.options.get(name)
        if text is None:
            return default
        try:
            number = float(text)
        except ValueError:
            raise ModelError(f"Line {self.line}: {name} = {text!r:.40} is no number", "Mend the .cfg") from None
        if not abs(number) < 1 << 31:
            raise ModelError(f"Line {self.line}: {name} = {text!r:.40} is out of range", "Mend the .cfg")
        return number

    def list(self, name: str) -> list[float]:
        words = [w for w in re.split(r"[\s,]+", self.text(name)) if w]
        try:
            return [float(w) for w in words]
        except ValueError:
            raise ModelError(f"Line {self.line}: {name} is no list of numbers", "Mend the .cfg") from None


def parse(path: Path) -> list[Section]:
    if path.stat().st_size > TEXT_CEILING:
        raise ModelError(f"{path.name} is too large for a Darknet .cfg", "Give the .cfg, not the weights")
    sections: list[Section] = []
    for number, raw in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        line = raw.split("#")[0].split(";")[0].strip()
        if not line:
            continue
        if line.startswith("["):
            sections.append(Section(line.strip("[]").strip().lower(), number))
        elif "=" in line and sections:
            key, _, value = line.partition("=")
            sections[-1].options[key.strip().lower()] = value.strip()
        else:
            raise ModelError(f"Line {number} of {path.name} is no option", "Mend the .cfg")
    if not sections or sections[0].kind not in {"net", "network"}:
        raise ModelError(f"{path.name} does not begin with [net]", "Mend the .cfg")
    if len(sections) < 2 or len(sections) > LAYERS:
        raise ModelError(f"{path.name} has {len(sections) - 1} layers", "Mend the .cfg")
    return sections


def weights_beside(path: Path) -> Path:
    """``NAME.weights``, or the only weights in the folder. A link out of the folder is not followed."""
    wished = path.with_suffix(".weights")
    found = [wished] if wished.is_file() else sorted(path.parent.glob("*.weights"))
    if len(found) != 1:
        many = "none" if not found else "several"
        raise ModelError(f"There are {many} .weights beside {path.name}", f"Put {wished.name} into the same folder")
    if not found[0].resolve().is_relative_to(path.parent.resolve()):
        raise ModelError(f"{found[0].name} leads out of the folder of {path.name}", "Put the file itself there")
    return found[0]


class Weights:
    """Floats in the order of the layers, behind a header of three or four numbers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        raw = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        if raw.size < 20:
            raise ModelError(f"{path.name} is too short for weights", "Copy the file again")
        major, minor, _ = (int(v) for v in raw[:12].view("<i4"))
        if not 0 <= major < 1000 or not 0 <= minor < 1000:
            raise ModelError(f"{path.name} does not begin like Darknet weights", "Copy the file again")
        header = 20 if major * 10 + minor >= 2 else 16
        self._floats: Array = raw[header : header + (raw.size - header) // 4 * 4].view("<f4")
        self._at = 0

    def take(self, shape: Sequence[int]) -> Array:
        count = int(np.prod([int(d) for d in shape], dtype=object))
        if count < 0 or self._at + count > self._floats.size:
            need = f"{self._at + count} or more are needed"
            raise ModelError(
                f"{self._path.name} ends too early: it has {self._floats.size} numbers, {need}",
                "Give the weights that belong to this .cfg",
            )
        found = self._floats[self._at : self._at + count].reshape(shape)
        self._at += count
        return found

    @property
    def used(self) -> int:
        return self._at

    @property
    def left(self) -> int:
        return int(self._floats.size) - self._at
