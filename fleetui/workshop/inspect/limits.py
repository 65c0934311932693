"""How much a file may ask of us: one place for the ceilings, and the words said when one is reached."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from fleetui.workshop.errors import HostileModel, LimitError, ModelError

GIB = 1 << 30
FOLDER_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds. ``memory`` is address space, to which a few times the file's size is added."""

    file: int = 4 * GIB
    memory: int = 8 * GIB
    cpu: float = 240.0
    wall: float = 300.0
    written: int = 64 << 20
    """The largest file that the process may write."""
    said: int = 16 << 20
    """The longest report that it may give."""

    def address_space(self, size: int) -> int:
        return self.memory + 4 * size


def human(size: float) -> str:
    """``1536`` → ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def size_of(path: Path, limits: Limits) -> int:
    """The bytes of a file, or of everything in a folder; refuses at once what is too large or no file at all."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ModelError(f"There is no file {path}", "Check the path") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "Check the path and its permissions") from error
    if stat.S_ISDIR(found.st_mode):
        total = _folder(path, limits)
    elif stat.S_ISREG(found.st_mode):
        total = found.st_size
        if total == 0:
            raise ModelError(f"{path.name} is empty", "Export or copy the model again")
    else:
        raise ModelError(f"{path.name} is neither a file nor a folder", "Give the path of a model")
    if total > limits.file:
        raise LimitError(
            f"{path.name} has {human(total)}; models of up to {human(limits.file)} are taken",
            "Give a smaller model",
        )
    return total


def _folder(path: Path, limits: Limits) -> int:
    """The bytes in a folder. Links that lead out of it are refused."""
    root = path.resolve()
    total = count = 0
    for where, folders, files in os.walk(root):
        for name in [*folders, *files]:
            count += 1
            if count > FOLDER_FILES:
                raise ModelError(
                    f"{path.name} is a folder of more than {FOLDER_FILES} files", "Give the model's own folder"
                )
            here = Path(where, name)
            if here.is_symlink() and not here.resolve().is_relative_to(root):
                raise HostileModel(f"{name} in {path.name} is a link that leads out of the folder", "Replace it")
        total += sum(Path(where, name).stat().st_size for name in files if Path(where, name).exists())
        if total > limits.file:
            break
    return total
