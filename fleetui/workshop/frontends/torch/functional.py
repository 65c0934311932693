"""What only PyTorch can do with a program, on a copy without anything pickled in it.

``torch.export.load`` unpickles example inputs and odd constants. So the copy is made first: members that are
pickles are left out or, where the program needs them, refused.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

from fleetui.workshop.errors import HostileModel, ModelError
from fleetui.workshop.frontends.torch.archive import JSON_CEILING, OLD
from fleetui.workshop.frontends.torch.extra import torch
from fleetui.workshop.inspect import archive
from fleetui.workshop.inspect.foreign import EXPORT_TORCH

TENSORS = 4 << 30


def clean(path: Path) -> io.BytesIO:
    """The program in memory, without example inputs."""
    out = io.BytesIO()
    with archive.open_archive(path) as zipped, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as copy:
        names = zipped.namelist()
        if OLD in names:
            raise ModelError("The program was saved before PyTorch 2.8", EXPORT_TORCH)
        for name in names:
            if "/extra/" in name or "/aotinductor/" in name:
                continue
            if "/data/sample_inputs/" in name:
                copy.writestr(name, b"")  # read as "there are none"
                continue
            if name.endswith("_config.json"):
                made = json.loads(archive.read(zipped, name, JSON_CEILING))
                if any(entry.get("use_pickle") for entry in made["config"].values()):
                    raise HostileModel("The program holds pickled tensors, which are not opened", EXPORT_TORCH)
            copy.writestr(name, archive.read(zipped, name, TENSORS))
    out.seek(0)
    return out


def load(path: Path) -> Any:
    """An ``ExportedProgram``."""
    module = torch()
    copy = clean(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own deprecations, at its own lines
        return module.export.load(copy)


def run(source: str, target: str) -> None:
    """In the limited process: the program in core operators, written to ``target``."""
    module = torch()
    program = load(Path(source))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = program.run_decompositions()
        made._example_inputs = None  # noqa: SLF001 - there is no other way to save a program without them
        module.export.save(made, target)
