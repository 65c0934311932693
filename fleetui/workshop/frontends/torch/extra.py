"""PyTorch itself, where it is installed: only for files of old, for decompositions and for the peer."""

from __future__ import annotations

from typing import Any

from fleetui.workshop.errors import MissingExtra


def torch() -> Any:
    try:
        import torch as module
    except ImportError as error:
        raise MissingExtra("This PyTorch model", "torch") from error
    return module
