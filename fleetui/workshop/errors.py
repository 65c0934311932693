"""What can go wrong on the way from a model to a variant, said so that a person can act on it.

Everything here is an ``OperatorError``: one sentence, and what to do. ``code`` is stable and goes into JSON, the
store and the desk; the sentence may be improved.
"""

from __future__ import annotations

from fleetui.common.domain.errors import OperatorError


class WorkshopError(OperatorError):
    code = "workshop"


class ModelError(WorkshopError):
    """The file is not a model, is damaged, or does not hold together."""

    code = "bad-model"


class HostileModel(ModelError):  # noqa: N818 - reads as what it is
    """The file tries something a model has no business with: paths, pickles, bombs."""

    code = "hostile-model"


class UnsupportedError(WorkshopError):
    """A sound model that uses what we cannot compile. ``operator`` and ``node`` name it where there is one."""

    code = "unsupported"

    def __init__(self, sentence: str, fix: str = "", *, operator: str = "", node: str = "") -> None:
        super().__init__(sentence, fix)
        self.operator = operator
        self.node = node


class MissingExtra(WorkshopError):  # noqa: N818 - reads as what it is
    """A frontend or peer is not installed: the sentence names the extra."""

    code = "missing-extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra part of FleetUI", f"Install it: pip install 'fleetui[{extra}]'")
        self.extra = extra


class ShapeError(WorkshopError):
    """Shapes or dtypes that do not fit together, in the model or between the model and what was asked."""

    code = "shape"


class TargetError(WorkshopError):
    """A target that is unknown, or cannot be linked or run on this machine."""

    code = "target"


class ToleranceError(WorkshopError):
    """The compiled form does not agree with its source: it is not produced."""

    code = "tolerance"


class LimitError(WorkshopError):
    """Memory, time, disk or size ran out."""

    code = "limit"


class Stopped(WorkshopError):  # noqa: N818 - somebody asked for it; not an error of anything
    code = "stopped"

    def __init__(self) -> None:
        super().__init__("The job was stopped")
