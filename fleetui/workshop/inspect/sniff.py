"""Which frontend reads this file? Decided by what is in it; names and endings are not looked at."""

from __future__ import annotations

from pathlib import Path

from fleetui.workshop.errors import ModelError
from fleetui.workshop.frontends import table
from fleetui.workshop.frontends.base import Frontend
from fleetui.workshop.inspect import archive, foreign
from fleetui.workshop.inspect.limits import Limits, size_of

HEAD = 64 << 10
TAKEN = (
    "FleetUI takes ONNX, PyTorch .pt2, TFLite, Keras .keras and .h5, TensorFlow SavedModel folders, StableHLO, "
    "XGBoost .json and .ubj, LightGBM .txt, scikit-learn exported by us or as ONNX, and Darknet .cfg"
)


def sniff(path: Path, limits: Limits | None = None) -> Frontend:
    """Raises ``ModelError`` for what nobody takes, and ``HostileModel`` for archives that try something."""
    limits = limits or Limits()
    path = Path(path)
    size_of(path, limits)
    head = b""
    is_zip = False
    if path.is_file():
        try:
            with path.open("rb") as file:
                head = file.read(HEAD)
        except OSError as error:
            raise ModelError(f"{path.name} cannot be read: {error}", "Check its permissions") from error
        is_zip = head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}
        if is_zip:
            archive.open_archive(path, limits).close()
        known = foreign.unmistakable(head)
        if known is not None:
            raise _refused(path, known)
    for candidate in table.frontends():
        if candidate.sniff(head, path):
            return candidate
    if path.is_dir():
        raise _refused(path, foreign.folder(path))
    known = foreign.archive(archive.members(path)) if is_zip else foreign.likely(head, path)
    if known is not None:
        raise _refused(path, known)
    raise ModelError(f"{path.name} is no model of a kind that we know", TAKEN)


def _refused(path: Path, said: foreign.Said) -> ModelError:
    sentence, fix = said
    return ModelError(f"{path.name} {sentence}", fix)
